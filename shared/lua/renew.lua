-- Prolong a worker's lease, or take a new one out; keep what it says of itself.
-- KEYS: leases, the worker's cancels, its report
-- ARGV: worker, lease ms, 1 to take out a new lease, the report ('' for none)
-- Returns {1, {jobs to cancel}, Redis' ms}, or {0, {}, ms} when the lease was revoked: its jobs belong to others.
local now = now_ms()
local lease = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[3] ~= '1' and (not lease or tonumber(lease) == 0) then return {0, {}, now} end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
if ARGV[4] ~= '' then redis.call('SET', KEYS[3], ARGV[4], 'PX', 2 * ARGV[2]) end
local cancels = redis.pcall('SMEMBERS', KEYS[2])
if cancels.err then
  -- No set of ours: a lease is not to be lost by it.
  redis.call('DEL', KEYS[2])
  cancels = {}
end
return {1, cancels, now}
