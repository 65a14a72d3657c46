-- Cancel a job: end it here and now while it waits, ask its worker while it runs.
-- KEYS: job, log, queue
-- ARGV: job id, key prefix, retention ms
-- Returns 'unknown', 'cancelled_before_start', 'cancelled', 'cancelling' or 'already_finished'.
local id, prefix = ARGV[1], ARGV[2]
local record = redis.call('HMGET', KEYS[1], 'status', 'worker', 'attempt')
local status, worker = record[1], record[2]
if not status then return 'unknown' end
if status == 'queued' then
  local attempt = tonumber(record[3])
  redis.call('ZREM', KEYS[3], id)
  end_job(prefix, id, 'cancelled', nil, ARGV[3], now_ms())
  return attempt == 0 and 'cancelled_before_start' or 'cancelled'
end
if status == 'running' then
  redis.call('HSETNX', KEYS[1], 'cancel_ms', now_ms())
  redis.call('SADD', prefix .. ':cancels:' .. worker, id)
  redis.call('PUBLISH', prefix .. ':control:' .. worker, id)
  return 'cancelling'
end
return 'already_finished'
