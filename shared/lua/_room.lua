-- Room at a provider: how many calls at once, how many requests and tokens a minute, and whether it takes any at all just now.
-- A scope is what a limit or a pause is for: 'provider/model', or 'provider'. A call needs room in both of its scopes.
local RAMP_MS, RAMP_STEPS = 250, 10

local function scopes_of(provider, model)
  return {provider .. '/' .. model, provider}
end

-- When a scope may be asked again after its provider's 429; nil when it may. What waited comes back in steps, 1, 2, 4, …
-- calls, each a quarter of a second after the one before it: the first ones are refused again before the others are made.
local function paused(prefix, scope, now)
  local over = redis.call('ZSCORE', prefix .. ':pauses', scope)
  if not over then return nil end
  over = tonumber(over)
  if now < over then return over end
  local step = math.floor((now - over) / RAMP_MS)
  local let_in = tonumber(redis.call('HGET', prefix .. ':pause:' .. scope, 'let_in') or 0)
  if step >= RAMP_STEPS or let_in < 2 ^ (step + 1) - 1 then return nil end
  return over + (step + 1) * RAMP_MS
end

-- What keeps a call with so many tokens out of a scope, and the moment (ms) to look again: 0 when it is not known, as a
-- call has to end first. nil when there is room. `returns`: the job has been in before, and is asked for again.
local function full(prefix, scope, limits, tokens, now, returns)
  local over = paused(prefix, scope, now)
  if over then return 'rate_limited', over end
  local limit = limits[scope]
  if not limit then return nil end
  if limit.concurrent then
    local calls = prefix .. ':calls:' .. scope
    if redis.call('ZCARD', calls) >= limit.concurrent then
      -- Nobody ends the call of a job whose record has expired.
      redis.call('ZREMRANGEBYSCORE', calls, '-inf', now)
      if redis.call('ZCARD', calls) >= limit.concurrent then return 'concurrency', 0 end
    end
  end
  for _, rate in ipairs({{'requests_per_minute', 1}, {'tokens_per_minute', tokens}}) do
    local reason, amount = rate[1], rate[2]
    local most = limit[reason]
    if most then
      -- One that is larger than the whole bucket waits for an empty one.
      local above = level(prefix .. ':' .. reason .. ':' .. scope, now) + math.min(amount, most) - most
      if above > 0 then return reason, now + math.ceil(above * 60000 / most) end
    end
  end
  if not returns then
    -- Whoever has waited in a worker's hands goes first, or the line would take every place that comes free.
    local last = redis.call('ZREVRANGE', prefix .. ':returning:' .. scope, 0, 0, 'WITHSCORES')[2]
    if last and tonumber(last) > now then return 'concurrency', tonumber(last) end
  end
  return nil
end

-- Let a call in: it counts from here on, in the record too, so that whoever ends it knows where it counts.
local function take(prefix, id, provider, model, limits, tokens, now)
  local job, room = prefix .. ':job:' .. id, {}
  for _, scope in ipairs(scopes_of(provider, model)) do
    local limit = limits[scope]
    if limit then
      if limit.concurrent then
        redis.call('ZADD', prefix .. ':calls:' .. scope, now + redis.call('PTTL', job), id)
      end
      if limit.requests_per_minute then
        pour(prefix .. ':requests_per_minute:' .. scope, 1, limit.requests_per_minute, now)
      end
      if limit.tokens_per_minute then
        pour(prefix .. ':tokens_per_minute:' .. scope, tokens, limit.tokens_per_minute, now)
      end
      room[#room + 1] = {scope, tokens, limit.tokens_per_minute}
    end
    if redis.call('ZSCORE', prefix .. ':pauses', scope) then
      redis.call('HINCRBY', prefix .. ':pause:' .. scope, 'let_in', 1)
    end
  end
  if room[1] then redis.call('HSET', job, 'room', cjson.encode(room)) end
end
