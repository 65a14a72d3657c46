-- Forget a finished job: record, log and index entry.
-- KEYS: job, log, arq job, owner's jobs
-- ARGV: job id
-- Returns 1 when it is gone, 0 when it is still live, -1 when there is no such job.
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return -1 end
if status == 'queued' or status == 'running' then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[4], ARGV[1])
return 1
