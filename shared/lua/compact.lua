-- Put a snapshot in place of all that stands before a log's last event; readers who were behind get it as one event.
-- KEYS: log
-- ARGV: id of the last event, id of the event before it, the snapshot's data
-- Returns 1 when done, 0 when there was nothing to do.
local length = redis.call('XLEN', KEYS[1])
if length <= 2 then return 0 end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last[1] ~= ARGV[1] then return 0 end
local ttl = redis.call('PTTL', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('XADD', KEYS[1], ARGV[2], 'snapshot', ARGV[3])
redis.call('XADD', KEYS[1], last[1], unpack(last[2]))
redis.call('PEXPIRE', KEYS[1], ttl)
return 1
