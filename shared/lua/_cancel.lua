-- Cancel a job: end it here and now while it waits, ask its worker while it runs.
-- Returns 'unknown', 'cancelled_before_start', 'cancelled', 'cancelling' or 'already_finished'.
local function cancel_job(prefix, id, retention_ms)
  local job = prefix .. ':job:' .. id
  local record = redis.call('HMGET', job, 'status', 'worker', 'attempt', 'line', 'owner', 'priority')
  local status, worker = record[1], record[2]
  if not status then return 'unknown' end
  if status == 'queued' then
    local attempt = tonumber(record[3])
    unqueue(prefix, id, record[4])
    leave_place(prefix, id, record[4] or '', record[5], record[6])
    if record[4] then redis.call('LPUSH', prefix .. ':wake', 1) end
    end_job(prefix, id, 'cancelled', nil, retention_ms, now_ms())
    return attempt == 0 and 'cancelled_before_start' or 'cancelled'
  end
  if status == 'running' then
    redis.call('HSETNX', job, 'cancel_ms', now_ms())
    redis.call('SADD', prefix .. ':cancels:' .. worker, id)
    redis.call('PUBLISH', prefix .. ':control:' .. worker, id)
    return 'cancelling'
  end
  return 'already_finished'
end
