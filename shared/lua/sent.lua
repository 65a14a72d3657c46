-- Note that milestones of some jobs are in their logs, unless there are more of them by now. Where there are none any more, the job was
-- deleted while some were on their way: its log is to be looked at once more.
-- KEYS: unsent and log of each job
-- ARGV: id of each job, and how many have been taken there
for i = 1, #ARGV, 2 do
  local held, taken = redis.pcall('XLEN', KEYS[i + 1]), tonumber(ARGV[i + 1])
  if held == taken then
    redis.call('ZREM', KEYS[i], ARGV[i])
  elseif held == 0 then
    note_unsent(KEYS[i], ARGV[i])
  end
end
return 1
