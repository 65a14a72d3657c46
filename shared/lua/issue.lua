-- Keep what an API key is known by and what it may do.
-- KEYS: the key's record, all keys by creation
-- ARGV: key id, hash, terms, when to forget it (ms) or ''
-- Returns created ms, also to a repeat after a lost reply; 0 when another key has this id.
local hash, created_ms = unpack(redis.call('HMGET', KEYS[1], 'hash', 'created_ms'))
if hash then return hash == ARGV[2] and tonumber(created_ms) or 0 end

local now = now_ms()
redis.call('HSET', KEYS[1], 'hash', ARGV[2], 'terms', ARGV[3], 'created_ms', now)
if ARGV[4] ~= '' then redis.call('PEXPIREAT', KEYS[1], ARGV[4]) end
redis.call('ZADD', KEYS[2], now, ARGV[1])
return now
