-- Read what is to be taken to a job's log on another server.
-- KEYS: job, log
-- Returns {milestones in all, ms the record lives, {{id, {event, data}}, …}}; {0} when there is no such job, or nothing of its log.
local ttl = redis.call('PTTL', KEYS[1])
if ttl <= 0 then return {0} end
local entries = redis.call('XRANGE', KEYS[2], '-', '+')
return {#entries, ttl, entries}
