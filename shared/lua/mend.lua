-- Make way for a job that `create` has failed on: clear its names of what is not of our making, and forget what was made of it.
-- KEYS: as of `create`
-- ARGV: key prefix, job id
-- Returns how many names were cleared; 0 when it would fail again.
local kinds = {'hash', 'stream', 'zset', 'string', 'zset', 'string', 'list', 'zset', 'zset', 'list', 'string', 'string'}
local cleared = mend(ARGV[1], ARGV[2], now_ms())
for i, key in ipairs(KEYS) do cleared = cleared + clear(kinds[i], key) end
bury(ARGV[1], ARGV[2], 1, now_ms())
redis.call('DEL', KEYS[1], KEYS[2], KEYS[4])
redis.call('ZREM', KEYS[5], ARGV[2])
return cleared
