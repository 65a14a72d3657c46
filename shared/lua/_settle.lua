-- What a job's calls to providers have taken, and who pays. Each call is settled once: `call` in the record is the attempt
-- with which the open one began, and is gone with its settlement, as is the room that limits count for it (`room`).
-- Whatever takes an attempt out of a worker's hands settles in the same step, and says how:
--   JSON        what the call took, as `shared.prices.Usage` writes it
--   'estimate'  nobody is left to say: guess from the log, or what its worker has said last (`progress`) where that is elsewhere
--   'unasked'   no provider was asked
--   'open'      not yet: the next attempt goes on with the same call, which keeps its room
-- Numbers are doubles: costs, in 10^-12 dollars, are exact up to 9,007 dollars a job.

local SAMPLE = 64        -- entries of an attempt that an estimate looks at; the rest are taken to be like them
local MOST_FIELDS = 2048 -- of a day's ledger: some 250 models; what comes then is counted as `other/other`

-- Guess the tokens that attempts have written: four bytes each.
local function written(log, first, last)
  local total = 0
  for attempt = first, last do
    local entries, bytes = redis.call('XREVRANGE', log, attempt, attempt, 'COUNT', SAMPLE), 0
    for _, entry in ipairs(entries) do
      local event, data = entry[2][1], entry[2][2]
      if event == 'token' or event == 'reasoning' then
        bytes = bytes + #data - 11
      elseif event == 'tool_call' then
        bytes = bytes + #data - 26
      end
    end
    if entries[1] then
      local count = tonumber(string.match(entries[1][1], '%d+$')) + 1
      total = total + math.ceil(bytes * math.max(1, count / #entries) / 4)
    end
  end
  return total
end

local function number(value)
  return string.format('%.0f', value)
end

local function settle(prefix, id, how, now)
  local job, log = prefix .. ':job:' .. id, prefix .. ':log:' .. id
  if how == 'open' then return end
  local call, attempt, base, used, rates, owner, key, provider, model, input_estimate, ledger_days, room, progress = unpack(redis.call('HMGET',
    job, 'call', 'attempt', 'base', 'used', 'rates', 'owner', 'key', 'provider', 'model', 'input_estimate', 'ledger_days', 'room', 'progress'))
  if not call then return end
  redis.call('HDEL', job, 'call', 'progress')
  if how == 'unasked' then return free(prefix, id, room, 0, now) end

  local usage
  if how == 'estimate' and progress then
    usage = cjson.decode(progress)
  elseif how == 'estimate' then
    -- A call that goes on from an earlier attempt's text was given that as well.
    local given = written(log, tonumber(base), call - 1)
    usage = {input_tokens = (input_estimate or 0) + given, output_tokens = written(log, tonumber(call), tonumber(attempt)), estimated = true}
  else
    usage = cjson.decode(how)
  end
  local input, output, reasoning = usage.input_tokens, usage.output_tokens, usage.reasoning_tokens or 0
  local cached = math.min(usage.cached_input_tokens or 0, input)
  free(prefix, id, room, input + output, now)
  local estimated, cost, unpriced = usage.estimated and 1 or 0, 0, 0
  if rates then
    local per_input, per_cached, per_output = string.match(rates, '^(%d+) (%d+) (%d+)$')
    cost = (input - cached) * per_input + cached * per_cached + output * per_output
  elseif input + output > 0 then
    unpriced = 1
  end

  if how == 'estimate' then book_call(provider or '', model or '', input, cached, output, reasoning, cost) end

  local names = {'requests', 'input_tokens', 'cached_input_tokens', 'output_tokens', 'reasoning_tokens', 'estimated', 'cost', 'unpriced'}
  local amounts = {1, input, cached, output, reasoning, estimated, cost, unpriced}
  local totals, i = {}, 1
  for before in string.gmatch(used or '0 0 0 0 0 0 0 0', '%d+') do
    totals[i] = number(before + amounts[i])
    i = i + 1
  end
  redis.call('HSET', job, 'used', table.concat(totals, ' '))

  if not used then
    -- A job counts where its first call does.
    names[9], amounts[9] = 'jobs', 1
  end
  local day = math.floor(now / 86400000)
  local ledger, row = prefix .. ':usage:' .. owner .. ':' .. day, ':' .. (key or '') .. ':' .. provider .. '/' .. model
  if redis.call('HINCRBY', ledger, 'requests' .. row, 1) == 1 then
    if redis.call('HLEN', ledger) > MOST_FIELDS then
      redis.call('HDEL', ledger, 'requests' .. row)
      row = ':' .. (key or '') .. ':other/other'
      redis.call('HINCRBY', ledger, 'requests' .. row, 1)
    end
    redis.call('EXPIREAT', ledger, (day + 1 + (ledger_days or 0)) * 86400)
  end
  for n = 2, #names do
    -- A figure that no counter can hold must not keep a job from its end.
    if amounts[n] > 0 then redis.pcall('HINCRBY', ledger, names[n] .. row, number(amounts[n])) end
  end
  if cost > 0 then redis.pcall('HINCRBY', ledger, 'cost', number(cost)) end
end

-- Settle the call of an attempt that is not the last, unless the provider's own run goes on: the next one listens to that.
local function settle_unless_it_runs(prefix, id, how, now)
  settle(prefix, id, redis.call('HEXISTS', prefix .. ':job:' .. id, 'run') == 1 and 'open' or how, now)
end

-- What all settled calls of a job have taken, as its last event tells it.
local function usage_json(job)
  local _, input, cached, output, reasoning, estimated =
    string.match(redis.call('HGET', job, 'used') or '0 0 0 0 0 0', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)')
  return '{"input_tokens":' .. input .. ',"cached_input_tokens":' .. cached .. ',"output_tokens":' .. output
    .. (reasoning == '0' and '' or ',"reasoning_tokens":' .. reasoning) .. ',"estimated":' .. tostring(estimated ~= '0') .. '}'
end
