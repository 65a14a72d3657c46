-- Create a job, its log and its queue entry, or nothing.
-- KEYS: job, log, queue, arq job, owner's jobs, order of creation, wake, blocked
-- ARGV: job id, arq payload, ms a live job may last, jobs that may wait, key prefix, then the record's fields and values
-- Returns {1, created ms, position}; {0, created ms, 0} when it exists already (a repeat after a lost reply);
--         {-1} when the queue is full.
local existing = redis.call('HGET', KEYS[1], 'created_ms')
if existing then return {0, tonumber(existing), 0} end
if redis.call('ZCARD', KEYS[3]) + redis.call('ZCARD', KEYS[8]) >= tonumber(ARGV[4]) then return {-1} end

local id, live_ms, now = ARGV[1], tonumber(ARGV[3]), now_ms()
redis.call('HSET', KEYS[1], 'status', 'queued', 'created_ms', now, 'attempt', 0, 'losses', 0, unpack(ARGV, 6))
redis.call('PEXPIRE', KEYS[1], live_ms)
redis.call('SET', KEYS[4], ARGV[2], 'PX', live_ms)
redis.call('ZADD', KEYS[3], now, id)
local position = redis.call('ZCARD', KEYS[3])
redis.call('XADD', KEYS[2], '0-1', 'queued', '{"position":' .. position .. '}')
redis.call('PEXPIRE', KEYS[2], live_ms)

redis.call('ZADD', KEYS[5], redis.call('INCR', KEYS[6]), id)
redis.call('PEXPIRE', KEYS[5], live_ms)
-- Two of the oldest leave for one that comes, if they have expired: the index cannot outgrow the jobs.
for _, old in ipairs(redis.call('ZRANGE', KEYS[5], 0, 1)) do
  if redis.call('EXISTS', ARGV[5] .. ':job:' .. old) == 0 then redis.call('ZREM', KEYS[5], old) end
end

-- A job that minds being read by nobody waits for its first reader as for one that has left, and a while longer.
local grace_s = redis.call('HGET', KEYS[1], 'leave_grace_s')
if grace_s then
  local present = ARGV[5] .. ':present:' .. id
  redis.call('ZADD', present, now + math.max(grace_s * 1000, 10000), 'submit')
  redis.call('PEXPIRE', present, live_ms)
end

if redis.call('LLEN', KEYS[7]) < position then redis.call('LPUSH', KEYS[7], 1) end
return {1, now, position}
