-- What waits, in numbers, for a scrape.
-- KEYS: queue, blocked, leases, pauses, orphans
-- ARGV: key prefix, how many jobs of each to look at for the oldest
-- Returns {jobs that wait, those of them that wait for room, ms since the oldest of them was created (-1: nobody waits), workers,
--          models that are paused, runs to be cancelled}. What stands there and is not ours counts as nothing.
local now = now_ms()
local function number(...)
  local found = redis.pcall(...)
  return type(found) == 'number' and found or 0
end

local oldest
for _, key in ipairs({KEYS[1], KEYS[2]}) do
  local ids = redis.pcall('ZRANGE', key, 0, ARGV[2] - 1)
  for _, id in ipairs(ids.err and {} or ids) do
    local created = redis.pcall('HGET', ARGV[1] .. ':job:' .. id, 'created_ms')
    created = type(created) == 'string' and tonumber(created)
    if created and (not oldest or created < oldest) then oldest = created end
  end
end
local blocked = number('ZCARD', KEYS[2])
return {number('ZCARD', KEYS[1]) + blocked, blocked, oldest and math.max(0, now - oldest) or -1,
  number('ZCOUNT', KEYS[3], now, '+inf'), number('ZCOUNT', KEYS[4], now, '+inf'), number('ZCARD', KEYS[5])}
