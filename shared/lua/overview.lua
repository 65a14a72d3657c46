-- What goes on, for an operator: who works at what, who has no room. Bounded, however much that is; nothing is written.
-- KEYS: leases, lines, pauses
-- ARGV: key prefix, running jobs to list, jobs to look at, workers to list, scopes to list
-- Returns {now, {{scope, jobs in its line}, …}, {{scope, end of its pause}, …},
--          workers in all, {{worker, end of its lease, jobs it holds, what it reports of itself or ''}, …},
--          jobs in hands in all, {{id, place of its worker in that list from 0, or -1, owner, provider, model, attempt, created, started,
--          first token or '', when its cancel was asked for or ''}, …}}: those that started first, in no order.
-- What stands there and is not ours counts as nothing.
local prefix, listed, looked_at, most_workers, most_scopes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local function try(nothing, ...)
  local found = redis.pcall(...)
  if type(found) == 'table' and found.err then return nothing end
  return found or nothing
end

local lines = {}
for _, scope in ipairs(try({}, 'ZRANGE', KEYS[2], 0, most_scopes - 1)) do
  lines[#lines + 1] = {scope, try(0, 'ZCARD', prefix .. ':line:' .. scope)}
end

local now, pauses = now_ms(), {}
local paused = try({}, 'ZRANGEBYSCORE', KEYS[3], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, most_scopes)
for i = 1, #paused, 2 do pauses[#pauses + 1] = {paused[i], paused[i + 1]} end

-- Those whose lease is over come first.
local workers, held, moments, in_hands = {}, {}, {}, 0
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
      local started = redis.pcall('HGET', prefix .. ':job:' .. id, 'started_ms')
      started = type(started) == 'string' and tonumber(started)
      if started then
        held[#held + 1] = {id, place, started}
        moments[#moments + 1] = started
      end
    end
  end
end
-- (To sort numbers is a tenth of sorting anything else, by a function.)
table.sort(moments)
local last, running = moments[math.min(listed, #moments)], {}
for _, job in ipairs(held) do
  if job[3] <= last and #running < listed then
    local record = try({}, 'HMGET', prefix .. ':job:' .. job[1], 'owner', 'provider', 'model', 'attempt', 'created_ms', 'started_ms',
      'first_token_ms', 'cancel_ms')
    for field = 1, 8 do job[field + 2] = record[field] or '' end
    running[#running + 1] = job
  end
end
return {now, lines, pauses, try(0, 'ZCARD', KEYS[1]), workers, in_hands, running}
