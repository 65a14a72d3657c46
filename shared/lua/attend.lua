-- Say how long each job is to be taken as read, as far as this process knows.
-- KEYS: who is present, one sorted set a job
-- ARGV: process, then ms per job
local now = now_ms()
for i, present in ipairs(KEYS) do
  local ms = tonumber(ARGV[i + 1])
  local given = redis.pcall('ZADD', present, now + ms, ARGV[1])
  if type(given) == 'table' then
    -- No list of ours, under the name of one: the other jobs' words must not be lost by it.
    redis.call('DEL', present)
    redis.call('ZADD', present, now + ms, ARGV[1])
  end
  -- Somebody came: the time that a new job is given for that is over.
  redis.call('ZREM', present, 'submit')
  redis.call('PEXPIRE', present, ms + 86400000)
end
return 1
