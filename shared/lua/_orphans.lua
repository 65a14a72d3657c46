-- Leave a run at its provider that nobody listens to any more to whichever worker comes first: it is to be cancelled there.
-- `from`: ms from which on others than its last listener may; they are told when that is now. An hour later the provider
-- has ended it by itself.
local function orphan(prefix, run, from)
  local orphans = prefix .. ':orphans'
  redis.call('ZADD', orphans, 'NX', from, run)
  redis.call('PEXPIRE', orphans, 3600000)
  if from <= now_ms() then redis.call('PUBLISH', orphans, '') end
end

-- The same for the run of a job that no worker holds.
local function orphan_of(prefix, job, now)
  local run = redis.call('HGET', job, 'run')
  if not run then return end
  redis.call('HDEL', job, 'run')
  orphan(prefix, run, now)
end
