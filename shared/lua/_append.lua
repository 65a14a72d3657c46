-- Append events of an attempt, each directly behind the one before it. An event that is there already with the same
-- content counts: it was appended before its reply was lost. False when a newer attempt or an end owns the log, when
-- the log is gone, or when Redis has lost events in between: nothing is ever written behind a hole.
-- Says also whether the log's top is now what the last of them made it, and nothing that came later.
-- `length`: of the log when all before the first event are there; XADD itself refuses what is not above the top.
-- `at`: where in ARGV the events begin, a name and data each; the first one's id is attempt-seq.
-- Readers are told when: all that a script appends has one moment, `<s> <µs>` of Redis' clock.
local appended
local function append(job, log, attempt, seq, length, at, count)
  local held, lines, ok = redis.call('XLEN', log), {}, true
  local fresh = count == 0 and held == length
  for i = 0, count - 1 do
    local id, event, data = attempt .. '-' .. (seq + i), ARGV[at + 2 * i], ARGV[at + 2 * i + 1]
    if held == length + i and add(log, id, event, data) then
      held = held + 1
      fresh = i == count - 1
      -- An attempt's `-0` is its opening, so `-1` is the first thing that the provider sent, or its end.
      if seq + i == 1 and (event == 'token' or event == 'reasoning' or event == 'tool_call') then
        redis.call('HSETNX', job, 'first_token_ms', now_ms())
      end
    else
      local there = redis.call('XRANGE', log, id, id)[1]
      ok = there ~= nil and there[2][1] == event and there[2][2] == data
      if not ok then break end
    end
    lines[i + 1] = id .. '\n' .. event .. '\n' .. data
  end
  if lines[1] then
    if not appended then
      local time = redis.call('TIME')
      appended = time[1] .. ' ' .. time[2]
    end
    lines[#lines + 1] = appended
    tell(log, table.concat(lines, '\n'))
  end
  return ok, fresh
end
