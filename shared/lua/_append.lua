-- Append one event of an attempt, directly behind the one before it. True also when it is there already with the same
-- content: it was appended before its reply was lost. False when a newer attempt or an end owns the log, when the log is
-- gone, or when Redis has lost events in between: nothing is ever written behind a hole.
local function append(job, log, id, event, data)
  local attempt, seq = string.match(id, '^(%d+)-(%d+)$')
  local top = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if top and top[1] == attempt .. '-' .. (seq - 1) and add(log, id, event, data) then
    -- An attempt's `-0` is its opening, so `-1` is the first thing that the provider sent, or its end.
    if seq == '1' and (event == 'token' or event == 'reasoning' or event == 'tool_call') then
      redis.call('HSETNX', job, 'first_token_ms', now_ms())
    end
    return true
  end
  local there = redis.call('XRANGE', log, id, id)[1]
  return there ~= nil and there[2][1] == event and there[2][2] == data
end
