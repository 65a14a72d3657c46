-- End jobs that a worker holds and can do nothing with: what is kept of them is not what we keep.
-- KEYS: the worker's running jobs
-- ARGV: key prefix, worker, retention ms, the jobs' ids
-- Returns what it has booked. A job that is not this worker's any more is left alone.
local prefix, now = ARGV[1], now_ms()
for i = 4, #ARGV do
  mend(prefix, ARGV[i], now)
  if redis.call('HGET', prefix .. ':job:' .. ARGV[i], 'worker') == ARGV[2] then bury(prefix, ARGV[i], ARGV[3], now) end
  redis.call('SREM', KEYS[1], ARGV[i])
end
return booked
