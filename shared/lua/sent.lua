-- Note that milestones of some jobs are in their logs, unless there are more of them by now, or none, as the job was deleted meanwhile.
-- KEYS: unsent and log of each job
-- ARGV: id of each job, and how many have been taken there
for i = 1, #ARGV, 2 do
  if redis.call('XLEN', KEYS[i + 1]) == tonumber(ARGV[i + 1]) then redis.call('ZREM', KEYS[i], ARGV[i]) end
end
return 1
