-- Whose turn it is. Jobs wait in rounds, and an owner has one job in a round: nobody's many jobs stand before another's first.
-- A turn, the score in the queue and in its lines, is a round and a fraction by creation; `round` is the one served last.
-- Turns are the owner's: whichever of its jobs is the most urgent takes the next of them. Jobs wait in places: the queue, '', or a
-- line. `turns` has an owner's turns in one place; a lane what it has waiting there with one priority, in order of creation.
-- A job that has run before is in none of them: it goes on at its own turn.
local PRIORITIES = {'high', 'normal', 'low'}
local WRAP = 2 ^ 27 -- jobs: within a round, the order of what is older than that may be another

local function lane_of(prefix, place, owner, priority)
  return prefix .. ':lane:' .. place .. ':' .. owner .. ':' .. priority
end

local function turns_of(prefix, place, owner)
  return prefix .. ':turns:' .. place .. ':' .. owner
end

-- Give a new job a turn in the queue, behind all that its owner has there and in the lines of the same provider and model. Returns
-- the turn, and its position: that of the turn that it will take if nobody comes before it.
local function take_turn(prefix, id, owner, priority, provider, model, created, live_ms)
  local queue, turns, lane = prefix .. ':queue', turns_of(prefix, '', owner), lane_of(prefix, '', owner, priority)
  local round = tonumber(redis.call('GET', prefix .. ':round') or 0)
  for _, place in ipairs({'', provider, provider .. '/' .. model}) do
    local last = redis.call('ZREVRANGE', turns_of(prefix, place, owner), 0, 0, 'WITHSCORES')[2]
    if last then round = math.max(round, math.floor(last) + 1) end
  end
  local before = 0
  for _, class in ipairs(PRIORITIES) do
    before = before + redis.call('ZCARD', lane_of(prefix, '', owner, class))
    if class == priority then break end
  end
  -- (A number becomes a string of 14 digits by itself.)
  local turn = string.format('%.17g', round + created % WRAP / WRAP)
  redis.call('ZADD', queue, turn, id)
  redis.call('ZADD', turns, turn, id)
  redis.call('ZADD', lane, created, id)
  redis.call('PEXPIRE', turns, live_ms)
  redis.call('PEXPIRE', lane, live_ms)
  local own = redis.call('ZRANGE', turns, before, before, 'WITHSCORES')[2] or turn
  return turn, redis.call('ZCOUNT', queue, '-inf', '(' .. own) + 1
end

-- Return the job to which its owner's turn belongs: the most urgent one in this place, for a job that has not run yet.
local function most_urgent(prefix, place, owner, priority)
  for _, class in ipairs(PRIORITIES) do
    local first = redis.call('ZRANGE', lane_of(prefix, place, owner, class), 0, 0)[1]
    if first then return first end
    if class == priority then return nil end
  end
end

-- Note that a job does not wait here any more.
local function leave_place(prefix, id, place, owner, priority)
  if not owner or not priority then return end
  redis.call('ZREM', turns_of(prefix, place, owner), id)
  redis.call('ZREM', lane_of(prefix, place, owner, priority), id)
end

-- Take a job of which nobody knows any more out of its owner's lanes.
local function forget(prefix, id, place, owner)
  for _, class in ipairs(PRIORITIES) do leave_place(prefix, id, place, owner, class) end
end

-- Move a waiting job with its turn from one place to another.
local function change_place(prefix, id, from, to, turn, owner, priority)
  local created = redis.call('ZSCORE', lane_of(prefix, from, owner, priority), id)
  leave_place(prefix, id, from, owner, priority)
  if created then
    local live_ms = math.max(1, redis.call('PTTL', prefix .. ':job:' .. id))
    for key, score in pairs({[lane_of(prefix, to, owner, priority)] = created, [turns_of(prefix, to, owner)] = turn}) do
      redis.call('ZADD', key, score, id)
      redis.call('PEXPIRE', key, live_ms)
    end
  end
end

-- Note which turn was served: new jobs come behind it.
local function serve(prefix, turn)
  local round = math.floor(turn)
  if round > tonumber(redis.call('GET', prefix .. ':round') or 0) then
    redis.call('SET', prefix .. ':round', string.format('%.0f', round))
  end
end
