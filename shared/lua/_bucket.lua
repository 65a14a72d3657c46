-- A bucket fills with what is asked and leaks its limit a minute: what stands above the limit has to leak first.
local MOST_MINUTES = 60 -- that a bucket is filled for, whatever a provider says that a call has taken

-- What stands in it now.
local function level(bucket, now)
  local stored = redis.call('HMGET', bucket, 'level', 'at_ms', 'per_minute')
  if not stored[1] then return 0 end
  local elapsed = now - stored[2]
  if elapsed < 0 then
    -- The clock was set back: leak from here on, not once it is there again.
    redis.call('HSET', bucket, 'at_ms', now)
    elapsed = 0
  end
  return math.max(0, stored[1] - elapsed * stored[3] / 60000)
end

-- Add to it; a negative amount was guessed too high.
local function pour(bucket, amount, per_minute, now)
  local stands = math.min(math.max(0, level(bucket, now) + amount), MOST_MINUTES * per_minute)
  redis.call('HSET', bucket, 'level', string.format('%.6f', stands), 'at_ms', now, 'per_minute', per_minute)
  redis.call('PEXPIRE', bucket, math.ceil(stands * 60000 / per_minute) + 1000)
end
