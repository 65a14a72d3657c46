-- Append events to many logs in one step.
-- KEYS: the logs, each once
-- ARGV: key prefix, then per log: job id, attempt, seq of the first event, entries before it, number of events,
--       then per event: name, data
-- Returns one number a log: 1 all of them appended, 0 refused.
local results, at = {}, 2
for i, log in ipairs(KEYS) do
  local seq, length, count = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  results[i] = append(ARGV[1] .. ':job:' .. ARGV[at], log, ARGV[at + 1], seq, length, at + 5, count) and 1 or 0
  at = at + 5 + 2 * count
end
return results
