-- Put a running job back in front of the queue without charging it an attempt; end it if it is to be cancelled.
-- Only its holder may.
-- KEYS: job, queue, wake, the worker's running jobs, the worker's cancels
-- ARGV: job id, worker, attempt ('' for whichever it holds), reason, key prefix, retention ms, how to settle the call,
--       the highest attempt that its log has seen ('' for this one)
-- Returns {1 when it waits again or has ended, 0 when the job is not this worker's any more; what it has booked}.
local now = now_ms()
local held = insist(ARGV[5], ARGV[1], ARGV[6], now, function()
  local record = redis.call('HMGET', KEYS[1], 'status', 'worker', 'attempt', 'turn', 'cancel_ms')
  if record[1] ~= 'running' or record[2] ~= ARGV[2] then return 0 end
  if ARGV[3] ~= '' and record[3] ~= ARGV[3] then return 0 end
  redis.call('SREM', KEYS[4], ARGV[1])
  redis.call('SREM', KEYS[5], ARGV[1])
  settle_unless_it_runs(ARGV[5], ARGV[1], ARGV[7], now)
  if record[5] then
    end_job(ARGV[5], ARGV[1], 'cancelled', nil, ARGV[6], now)
    return 1
  end
  redis.call('ZADD', KEYS[2], record[4], ARGV[1])
  redis.call('LPUSH', KEYS[3], 1)
  redis.call('HSET', KEYS[1], 'status', 'queued', 'restart_reason', ARGV[4])
  if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'attempt', math.max(ARGV[8], record[3])) end
  redis.call('HDEL', KEYS[1], 'worker')
  return 1
end) or 1
return {held, booked}
