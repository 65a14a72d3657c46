-- Cancel a job on its owner's behalf.
-- KEYS: job, log
-- ARGV: job id, key prefix, retention ms
-- Returns what `cancel_job` does.
return cancel_job(ARGV[2], ARGV[1], ARGV[3])
