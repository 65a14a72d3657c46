-- Open a job's next attempt in the hands of the worker that holds it: its provider failed, and is asked again, or another.
-- KEYS: job, log
-- ARGV: job id, worker, attempt that failed, reason, provider and model as JSON without braces, provider, model,
--       number of the fallback, what a token costs there ('' for unknown), key prefix, how to settle the failed call
-- Returns {1, attempt, log length, now, used in all}, also of a repeat after a lost reply; {0} when the job is not this worker's any more.
local worker, failed = ARGV[2], tonumber(ARGV[3])
local record = redis.call('HMGET', KEYS[1], 'status', 'worker', 'attempt')
if record[1] ~= 'running' or record[2] ~= worker then return {0} end
local attempt = failed + 1
if tonumber(record[3]) == failed then
  local opened = say(KEYS[2], attempt .. '-0', 'restarted',
    '{"attempt":' .. attempt .. ',"reason":"' .. ARGV[4] .. '",' .. ARGV[5] .. '}')
  if not opened then return {0} end
  settle(ARGV[10], ARGV[1], ARGV[11], now_ms())
  redis.call('HSET', KEYS[1], 'attempt', attempt, 'base', attempt,
    'target', ARGV[5], 'provider', ARGV[6], 'model', ARGV[7], 'fallback', ARGV[8])
  redis.call('HSETNX', KEYS[1], 'call', attempt)
  redis.call('HDEL', KEYS[1], 'first_token_ms')
  if ARGV[9] == '' then redis.call('HDEL', KEYS[1], 'rates') else redis.call('HSET', KEYS[1], 'rates', ARGV[9]) end
elseif tonumber(record[3]) ~= attempt then
  return {0}
end
return {1, attempt, redis.call('XLEN', KEYS[2]), now_ms(), redis.call('HGET', KEYS[1], 'used')}
