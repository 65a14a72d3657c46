-- Read what is to be taken to a job's log on another server.
-- KEYS: job, log
-- Returns what `milestones_of` says (_spread.lua); {} when there is no such job, or nothing of its log.
return milestones_of(KEYS[1], KEYS[2])
