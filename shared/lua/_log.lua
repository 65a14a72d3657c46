-- Add one event to a log. False when the log is gone or its top is not below `id`.
local function add(log, id, event, data)
  local added = redis.pcall('XADD', log, 'NOMKSTREAM', id, event, data)
  if type(added) == 'table' and added.err then
    if string.find(added.err, 'equal or smaller', 1, true) then return false end
    return error(added.err)
  end
  return added and true
end

-- Tell whoever reads a log what is new in it: id, event and data, a line each, for one event or several; the moment of an append
-- (_append.lua) may be behind them.
-- The channel is named like the log.
local function tell(log, lines)
  redis.call('PUBLISH', log, lines)
end

-- Add one event and tell; have it taken to where the log is, if that is elsewhere. Not so an opening (`own`): whoever has it writes
-- nothing before he has brought it there himself; should he die before that, it says nothing that the next one does not.
local function say(log, id, event, data, own)
  local added = add(log, id, event, data)
  if added then
    tell(log, id .. '\n' .. event .. '\n' .. data)
    if not own then send_on(string.match(log, '^(.*):log:(.*)$')) end
  end
  return added
end

-- The attempt at the top of a log, 0 without one.
local function top_attempt(log)
  local top = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  return top and tonumber(string.match(top[1], '^(%d+)')) or 0
end

-- The id that comes next in a log, within the attempt at its top.
local function next_id(log)
  local top = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if not top then return '0-1' end
  local attempt, seq = string.match(top[1], '^(%d+)-(%d+)$')
  return attempt .. '-' .. (seq + 1)
end
