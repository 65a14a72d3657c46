-- Append events to many logs in one step; each has to be the worker's that its job is in the hands of.
-- KEYS: the logs, each once
-- ARGV: key prefix, then per log: job id, worker, attempt, seq of the first event, entries before it, number of events,
--       then per event: name, data; behind all of them, for logs of which a provider's own run is behind: the log's number
--       and the run's bookmark, which stands in the record as long as the log ends with these events
-- Returns one number a log: 1 all of them appended, 0 refused.
local results, fresh, jobs, at = {}, {}, {}, 2
for i, log in ipairs(KEYS) do
  local job, count = ARGV[1] .. ':job:' .. ARGV[at], tonumber(ARGV[at + 5])
  -- Whoever requeues or ends a job that is not his takes it out of its holder's hands first.
  local ok = redis.call('HGET', job, 'worker') == ARGV[at + 1]
  if ok then
    ok, fresh[i] = append(job, log, ARGV[at + 2], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), at + 6, count)
  end
  results[i] = ok and 1 or 0
  jobs[i] = job
  at = at + 6 + 2 * count
end
while ARGV[at] do
  local i = tonumber(ARGV[at])
  -- A repeat that comes late must not turn it back.
  if results[i] == 1 and fresh[i] then redis.call('HSET', jobs[i], 'run', ARGV[at + 1]) end
  at = at + 2
end
return results
