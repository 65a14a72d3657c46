-- Let go of jobs that a worker holds and does not run: the reaper finds them as a lost worker's, and charges an attempt.
-- KEYS: leases, the worker's running jobs, those of a worker that is lost
-- ARGV: key prefix, worker, the lost worker's name, the jobs' ids
local count = 0
for i = 4, #ARGV do
  local job = ARGV[1] .. ':job:' .. ARGV[i]
  -- (What is no record has no holder: a table in place of a name.)
  if redis.call('SREM', KEYS[2], ARGV[i]) == 1 and redis.pcall('HGET', job, 'worker') == ARGV[2] then
    redis.call('HSET', job, 'worker', ARGV[3])
    redis.call('SADD', KEYS[3], ARGV[i])
    count = count + 1
  end
end
if count > 0 then redis.call('ZADD', KEYS[1], 1, ARGV[3]) end
return count
