-- Take the jobs of one worker whose lease has run out: requeue each, or end it when it has no attempt left.
-- KEYS: leases, queue, wake
-- ARGV: key prefix, attempts a job gets, retention ms, jobs at most in one go, until when the reaper may judge (ms)
-- Returns {worker or '', requeued, ended, 1 when that worker has jobs left, what it has booked}.
local prefix, max_attempts, now = ARGV[1], tonumber(ARGV[2]), now_ms()
-- Sent in time and run late, after a pause of Redis itself, it would find every lease run out, the reaper's own too.
if now > tonumber(ARGV[5]) then return {'', 0, 0, 0, booked} end
local worker = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1)[1]
if not worker then return {'', 0, 0, 0, booked} end

-- Revoked first: from here on the worker itself cannot prolong it.
redis.call('ZADD', KEYS[1], 0, worker)
local running, cancels = prefix .. ':running:' .. worker, prefix .. ':cancels:' .. worker
local requeued, ended = 0, 0
clear('set', running)

-- Requeue a job, or end it. Returns which; that it is nobody's any more is said last, so that a step that fails can be done again.
local function pass_on(id)
  local job = prefix .. ':job:' .. id
  local record = redis.call('HMGET', job, 'status', 'worker', 'attempt', 'losses', 'turn', 'cancel_ms', 'on_worker_lost')
  if record[1] ~= 'running' or record[2] ~= worker then return '' end
  local losses, outcome = record[4] + 1, 'ended'
  if record[6] then
    end_job(prefix, id, 'cancelled', nil, ARGV[3], now)
  elseif record[7] == 'fail' or losses >= max_attempts then
    local error = '"code":"worker_lost","message":"The worker that ran this job was lost.","retryable":true'
    end_job(prefix, id, 'failed', error, ARGV[3], now)
  else
    settle_unless_it_runs(prefix, id, 'estimate', now)
    redis.call('ZADD', KEYS[2], record[5], id)
    redis.call('LPUSH', KEYS[3], 1)
    redis.call('HSET', job, 'status', 'queued', 'restart_reason', 'worker_lost')
    outcome = 'requeued'
  end
  redis.call('HSET', job, 'losses', losses)
  redis.call('HDEL', job, 'worker')
  return outcome
end

for _, id in ipairs(redis.call('SRANDMEMBER', running, ARGV[4])) do
  redis.call('SREM', running, id)
  local outcome = insist(prefix, id, ARGV[3], now, function() return pass_on(id) end) or 'ended'
  if outcome == 'requeued' then requeued = requeued + 1 elseif outcome == 'ended' then ended = ended + 1 end
end
if redis.call('EXISTS', running) == 1 then return {worker, requeued, ended, 1, booked} end
redis.call('ZREM', KEYS[1], worker)
redis.call('DEL', cancels)
return {worker, requeued, ended, 0, booked}
