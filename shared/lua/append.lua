-- Append events to many logs in one step; an attempt that is refused once appends no more.
-- KEYS: the logs, one an event
-- ARGV: key prefix, then per event: job id, id, event, data
-- Returns one number an event: 1 appended, 0 refused.
local results, refused = {}, {}
for i, log in ipairs(KEYS) do
  local at = (i - 1) * 4 + 2
  local attempt = log .. string.match(ARGV[at + 1], '^%d+')
  local ok = not refused[attempt]
    and append(ARGV[1] .. ':job:' .. ARGV[at], log, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
  refused[attempt] = not ok
  results[i] = ok and 1 or 0
end
return results
