-- Leave a run that its listener has lost the job of: it is to be cancelled, unless the job's record knows it.
-- KEYS: job
-- ARGV: the run's bookmark, its id, key prefix
-- Returns 1 when nobody else knows it.
local known = redis.call('HGET', KEYS[1], 'run')
if known and cjson.decode(known).id == ARGV[2] then return 0 end
orphan(ARGV[3], ARGV[1], now_ms() + 5000)
return 1
