-- Move waiting jobs from the queue into a worker's hands, each with its next attempt opened in its log.
-- From that event on, Redis refuses whatever an earlier attempt still writes.
-- KEYS: queue, wake, leases, the worker's running jobs
-- ARGV: worker, how many, lease ms, key prefix, arq's job prefix, retention ms, 1 to cancel jobs that nobody reads
-- Returns {lease held (0 or 1), {{id, attempt, base, request, created ms, started ms, now, log length,
--          provider, model, fallbacks used, what a token costs there, used in all}, …},
--          {discarded ids}}.
local worker, lease_ms, prefix = ARGV[1], tonumber(ARGV[3]), ARGV[4]
local lease = redis.call('ZSCORE', KEYS[3], worker)
if not lease or tonumber(lease) == 0 then return {0, {}, {}} end

local now = now_ms()
redis.call('ZADD', KEYS[3], now + lease_ms, worker)
local claimed, discarded = {}, {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[2] - 1)) do
  local job, log = prefix .. ':job:' .. id, prefix .. ':log:' .. id
  local record = redis.call('HMGET', job, 'status', 'attempt', 'request', 'created_ms', 'started_ms', 'target', 'restart_reason', 'continues', 'base', 'leave_grace_s',
    'provider', 'model', 'fallback', 'rates', 'used', 'call')
  redis.call('ZREM', KEYS[1], id)
  if record[1] ~= 'queued' then
    redis.call('DEL', ARGV[5] .. id)
    discarded[#discarded + 1] = id
  elseif record[10] and ARGV[7] == '1' and deserted(prefix .. ':present:' .. id, now) then
    end_job(prefix, id, 'cancelled', nil, ARGV[6], now)
  else
    -- The log may know more than the record, if Redis has lost its last writes: no number is used twice.
    local attempt = math.max(tonumber(record[2]), top_attempt(log)) + 1
    local started = record[5] or now
    local goes_on = attempt > 1 and record[8] == '1' and record[9]
    local base = goes_on and tonumber(record[9]) or attempt
    if record[16] then
      -- A call that was left open, and that this attempt does not go on with.
      settle(prefix, id, 'estimate', now)
      record[15] = redis.call('HGET', job, 'used')
    end
    redis.call('HSET', job, 'status', 'running', 'worker', worker, 'attempt', attempt, 'base', base, 'started_ms', started)
    redis.call('HDEL', job, 'restart_reason')
    redis.call('SADD', KEYS[4], id)
    local opened
    if attempt == 1 or goes_on then
      opened = say(log, attempt .. '-0', 'started', '{"attempt":' .. attempt .. ',' .. record[6] .. '}')
    else
      redis.call('HDEL', job, 'first_token_ms')
      opened = say(log, attempt .. '-0', 'restarted',
        '{"attempt":' .. attempt .. ',"reason":"' .. (record[7] or 'worker_lost') .. '",' .. record[6] .. '}')
    end
    if opened then
      redis.call('HSET', job, 'call', attempt)
      local length = redis.call('XLEN', log)
      claimed[#claimed + 1] = {id, attempt, base, record[3], tonumber(record[4]), tonumber(started), now, length,
        record[11], record[12], tonumber(record[13] or 0), record[14], record[15]}
    else
      -- Without its log nobody could read it.
      redis.call('SREM', KEYS[4], id)
      local error = '"code":"log_lost","message":"The log of this job is gone.","retryable":true'
      end_job(prefix, id, 'failed', error, ARGV[6], now)
    end
  end
end

-- The tokens match the jobs that wait: none for an empty queue, one at least for what this worker left.
local waiting = redis.call('ZCARD', KEYS[1])
if waiting == 0 then
  redis.call('DEL', KEYS[2])
elseif redis.call('LLEN', KEYS[2]) == 0 then
  redis.call('LPUSH', KEYS[2], 1)
else
  redis.call('LTRIM', KEYS[2], 0, waiting - 1)
end
return {1, claimed, discarded}
