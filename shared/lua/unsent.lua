-- Take jobs whose milestones nobody has brought to their logs: whoever runs this brings them. For a while nobody else is told of them.
-- KEYS: unsent of each server
-- ARGV: for how long they are left to whoever has decided (ms), and to whoever takes them here, jobs at most of each server
-- Returns the jobs' ids, a list a server.
local now, found = now_ms(), {}
for i, key in ipairs(KEYS) do
  local ids = redis.pcall('ZRANGEBYSCORE', key, '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[3])
  if ids.err then
    -- No set of ours: workers are not to stop at it.
    redis.call('DEL', key)
    ids = {}
  end
  for _, id in ipairs(ids) do redis.call('ZADD', key, now + ARGV[2] - ARGV[1], id) end
  found[i] = ids
end
return found
