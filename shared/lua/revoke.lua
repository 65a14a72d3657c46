-- Revoke an API key, and tell all API processes: at once on the channel, and by a new mark for those that miss it.
-- KEYS: the key's record, mark of the last change (and the channel's name)
-- ARGV: key id, ms a dead key's record is kept, new mark
-- Returns 1, also when it was revoked before; 0 when there is no such key.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if redis.call('HSETNX', KEYS[1], 'revoked_ms', now_ms()) == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
redis.call('SET', KEYS[2], ARGV[3])
redis.call('PUBLISH', KEYS[2], ARGV[1])
return 1
