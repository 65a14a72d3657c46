-- Take runs that are to be cancelled at their providers; who takes one has a while to do it before another worker may.
-- KEYS: orphans
-- ARGV: how many, ms until others may
-- Returns their bookmarks.
local now = now_ms()
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, run in ipairs(due) do redis.call('ZADD', KEYS[1], now + ARGV[2], run) end
return due
