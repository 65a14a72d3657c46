-- End a job that no worker holds any more: last event, record, expiry, in one step.
-- Its usage is an estimate (4 bytes a token), as the provider's own figure died with the worker.
local function estimate(job, log, attempt)
  if attempt == 0 then
    return '{"input_tokens":0,"cached_input_tokens":0,"output_tokens":0,"estimated":false}'
  end
  local bytes = 0
  for _, entry in ipairs(redis.call('XRANGE', log, attempt .. '-0', '+')) do
    local event, data = entry[2][1], entry[2][2]
    if event == 'token' or event == 'reasoning' then
      bytes = bytes + #data - 11
    elseif event == 'tool_call' then
      bytes = bytes + #data - 26
    end
  end
  local input = tonumber(redis.call('HGET', job, 'input_estimate') or 0)
  return string.format('{"input_tokens":%d,"cached_input_tokens":0,"output_tokens":%d,"estimated":true}',
    input, math.ceil(bytes / 4))
end

local function end_job(prefix, id, status, event, data, usage, retention_ms, now)
  local job, log = prefix .. ':job:' .. id, prefix .. ':log:' .. id
  say(log, next_id(log), event, data)
  redis.call('HSET', job, 'status', status, 'finished_ms', now, 'usage', usage)
  redis.call('DEL', 'arq:job:' .. id)
  if redis.call('XLEN', log) > 4 then redis.call('ZADD', prefix .. ':ended', now, id) end
  redis.call('PEXPIRE', job, retention_ms)
  redis.call('PEXPIRE', log, retention_ms)
end
