-- Forget a finished job: record, log and index entry.
-- KEYS: job, log, arq job, owner's jobs
-- ARGV: job id, key prefix
-- Returns {1, the server that its log is on ('' for this one)} when it is gone, {0} when it is still live, {-1} when there is no such job.
local status, server = unpack(redis.call('HMGET', KEYS[1], 'status', 'server'))
if not status then return {-1} end
if status == 'queued' or status == 'running' then return {0} end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
if server then note_unsent(ARGV[2] .. ':unsent:' .. server, ARGV[1]) end
redis.call('ZREM', KEYS[4], ARGV[1])
return {1, server or ''}
