-- What an owner has taken of what it may take (`shared.quotas`).

local MINUTE_MS = 60000

-- POSTs that made a job within the last minute, and in how many ms the oldest of them is a minute old (0: there is none).
-- `posts`: a list of their moments. Each is dropped once, most of them long before there are so many.
local function recent(posts, now)
  local oldest
  for _ = 1, 1000 do
    oldest = tonumber(redis.call('LINDEX', posts, 0))
    -- One from the future is from before the clock was set back.
    if not oldest or (oldest > now - MINUTE_MS and oldest <= now) then break end
    redis.call('LPOP', posts)
  end
  return redis.call('LLEN', posts), oldest and math.max(0, oldest + MINUTE_MS - now) or 0
end

-- How many jobs of an owner are live. Only where that is too many: without those whose records have gone some other way
-- than by an end. `live`: their ids, by when the record expires.
local function live_jobs(prefix, live, most, now)
  local count = redis.call('ZCARD', live)
  if count < most then return count end
  redis.call('ZREMRANGEBYSCORE', live, '-inf', now)
  for _, id in ipairs(redis.call('ZRANDMEMBER', live, 16)) do
    local status = redis.call('HGET', prefix .. ':job:' .. id, 'status')
    if status ~= 'queued' and status ~= 'running' then redis.call('ZREM', live, id) end
  end
  return redis.call('ZCARD', live)
end

-- In how many ms an owner may spend again; nil while it may: its settled calls of the day have not cost `budget` yet.
local function spent_until(prefix, owner, budget, now)
  local day = math.floor(now / 86400000)
  local cost = tonumber(redis.call('HGET', prefix .. ':usage:' .. owner .. ':' .. day, 'cost') or 0)
  return cost >= budget and (day + 1) * 86400000 - now or nil
end
