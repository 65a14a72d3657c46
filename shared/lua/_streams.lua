-- How many streams an owner has open, over all API processes. Each process gives its word, for a while, in a hash of its own
-- (`streams:<process>`: owner by number), and is known by `streams` until then; one that dies takes its word with it.

-- Take an API process' word for `lease_ms` longer.
local function prolong(prefix, process, lease_ms, now)
  local processes = prefix .. ':streams'
  redis.call('ZADD', processes, now + lease_ms, process)
  redis.call('PEXPIRE', processes, lease_ms)
  redis.call('PEXPIRE', processes .. ':' .. process, lease_ms)
end

-- Take it that an owner has `here` streams open in one process, unless that is too many with those in others.
local function open_stream(prefix, owner, process, here, most, lease_ms, now)
  local processes, count = prefix .. ':streams', here
  redis.call('ZREMRANGEBYSCORE', processes, '-inf', now)
  for _, other in ipairs(redis.call('ZRANGE', processes, 0, -1)) do
    if other ~= process then
      count = count + tonumber(redis.call('HGET', processes .. ':' .. other, owner) or 0)
    end
  end
  if count > most then return false end
  redis.call('HSET', processes .. ':' .. process, owner, here)
  prolong(prefix, process, lease_ms, now)
  return true
end
