-- What goes on, for an operator: who waits, who works at what. Bounded, however much that is; nothing is written.
-- KEYS: leases, queue, blocked, lines, pauses
-- ARGV: key prefix, running jobs to list, jobs and turns to look at, workers to list, scopes to list
-- Returns {now, {jobs that wait, those of them that wait for room, when the oldest was created or -1},
--          {{scope, jobs in its line}, …}, {{scope, end of its pause}, …},
--          workers in all, {{worker, end of its lease, jobs it holds, what it reports of itself or ''}, …},
--          jobs in hands in all, {{id, place of its worker in that list from 0, or -1, owner, provider, model, attempt, created, started,
--          first token or '', when its cancel was asked for or ''}, …}}, the jobs that started first before the others.
-- What stands there and is not ours counts as nothing.
local prefix, listed, looked_at, most_workers, most_scopes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local function try(nothing, ...)
  local found = redis.pcall(...)
  if type(found) == 'table' and found.err then return nothing end
  return found or nothing
end

-- Turns are not ages: whoever has waited long is near its turn, so the oldest is looked for there.
local oldest = -1
for _, key in ipairs({KEYS[2], KEYS[3]}) do
  for _, id in ipairs(try({}, 'ZRANGE', key, 0, looked_at - 1)) do
    local created = tonumber(try('', 'HGET', prefix .. ':job:' .. id, 'created_ms'))
    if created and (oldest < 0 or created < oldest) then oldest = created end
  end
end
local blocked = try(0, 'ZCARD', KEYS[3])
local waiting = {try(0, 'ZCARD', KEYS[2]) + blocked, blocked, oldest}

local lines = {}
for _, scope in ipairs(try({}, 'ZRANGE', KEYS[4], 0, most_scopes - 1)) do
  lines[#lines + 1] = {scope, try(0, 'ZCARD', prefix .. ':line:' .. scope)}
end

local now, pauses = now_ms(), {}
local paused = try({}, 'ZRANGEBYSCORE', KEYS[5], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, most_scopes)
for i = 1, #paused, 2 do pauses[#pauses + 1] = {paused[i], paused[i + 1]} end

-- Those whose lease is over come first.
local workers, held, in_hands = {}, {}, 0
local leases = try({}, 'ZRANGE', KEYS[1], 0, looked_at - 1, 'WITHSCORES')
for i = 1, #leases, 2 do
  local worker, place = leases[i], (i - 1) / 2
  local count = try(0, 'SCARD', prefix .. ':running:' .. worker)
  in_hands = in_hands + count
  if place < most_workers then
    workers[#workers + 1] = {worker, leases[i + 1], count, try('', 'GET', prefix .. ':report:' .. worker)}
  else
    place = -1
  end
  if count > 0 and #held < looked_at then
    for _, id in ipairs(try({}, 'SMEMBERS', prefix .. ':running:' .. worker)) do
      if #held == looked_at then break end
      local started = tonumber(try('', 'HGET', prefix .. ':job:' .. id, 'started_ms'))
      if started then held[#held + 1] = {id, place, started} end
    end
  end
end
table.sort(held, function(one, other)
  if one[3] ~= other[3] then return one[3] < other[3] end
  return one[1] < other[1]
end)

local running = {}
for i = 1, math.min(listed, #held) do
  local id, place = held[i][1], held[i][2]
  local record = try({}, 'HMGET', prefix .. ':job:' .. id, 'owner', 'provider', 'model', 'attempt', 'created_ms', 'started_ms',
    'first_token_ms', 'cancel_ms')
  local job = {id, place}
  for field = 1, 8 do job[field + 2] = record[field] or '' end
  running[i] = job
end
return {now, waiting, lines, pauses, try(0, 'ZCARD', KEYS[1]), workers, in_hands, running}
