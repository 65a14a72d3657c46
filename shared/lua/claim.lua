-- Move waiting jobs into a worker's hands, each with its next attempt opened in its log, in the order of their turns (_turns.lua).
-- From that event on, Redis refuses whatever an earlier attempt still writes.
-- One whose provider has no room for it goes into a line (_lines.lua), and is looked at again when there may be some.
-- KEYS: queue, wake, leases, the worker's running jobs, lines, pauses
-- ARGV: worker, how many, lease ms, key prefix, arq's job prefix, retention ms, 1 to cancel jobs that nobody reads,
--       the limits by scope as JSON ('' for none), the servers with logs that this worker can write to, each behind a space
-- Returns {lease held (0 or 1), {{id, attempt, base, request, created ms, started ms, now, log length,
--          provider, model, fallbacks used, what a token costs there, used in all, bookmark of the provider's run or '',
--          why it begins ('' for the first), the span that submitted it, the server that its log is on ('' for this one),
--          its milestones, if that is another}, …},
--          {discarded ids}, ms until the next line is to be looked at (-1: a call or a job will say so), what it has booked}.
local worker, at_most, lease_ms, prefix = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local AWAY_MS = 1000 -- until another look at jobs whose logs are on a server that a worker cannot write to
local MOVES = 100 -- jobs that go into lines in one go: about a millisecond
local lease = redis.call('ZSCORE', KEYS[3], worker)
if not lease or tonumber(lease) == 0 then return {0, {}, {}, -1, booked} end

local now = now_ms()
redis.call('ZADD', KEYS[3], now + lease_ms, worker)
local claimed, discarded = {}, {}
local limits = ARGV[8] == '' and {} or cjson.decode(ARGV[8])
local usable = {}
for server in string.gmatch(ARGV[9], '%S+') do usable[server] = true end
local limited = ARGV[8] ~= '' or redis.call('EXISTS', KEYS[5], KEYS[6]) > 0

-- Where jobs wait: the queue, and the lines that it is time to look at.
local sources, shut = {{key = KEYS[1]}}, {}
if limited then
  clear('zset', KEYS[6])
  if clear('zset', KEYS[5]) > 0 and redis.call('TYPE', prefix .. ':blocked').ok == 'zset' then
    -- Whoever put something else in its place: who waits knows where.
    for _, id in ipairs(redis.call('ZRANGE', prefix .. ':blocked', 0, 9999)) do
      local line = redis.pcall('HGET', prefix .. ':job:' .. id, 'line')
      if type(line) == 'string' then redis.call('ZADD', KEYS[5], 0, line) end
    end
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now - RAMP_MS * RAMP_STEPS)
  for _, scope in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now)) do
    sources[#sources + 1] = {key = prefix .. ':line:' .. scope, scope = scope}
  end
  -- Whoever cannot write to a server says when to look again; whoever can, looks.
  for server in pairs(usable) do
    local scope = '@' .. server
    local at = redis.call('ZSCORE', KEYS[5], scope)
    if at and tonumber(at) > now then sources[#sources + 1] = {key = prefix .. ':line:' .. scope, scope = scope} end
  end
end

-- Find the source with the next turn; nil when none has any left.
local function next_source()
  local found
  for _, source in ipairs(sources) do
    if not source.done and (not source.jobs or (source.at > #source.jobs and #source.jobs == 2 * at_most)) then
      -- Those before it have been taken out of the set.
      source.jobs, source.at = redis.pcall('ZRANGE', source.key, 0, at_most - 1, 'WITHSCORES'), 1
      if source.jobs.err then
        clear('zset', source.key)
        source.jobs = {}
      end
    end
    if not source.done and source.at > #source.jobs then
      source.done = true
      if source.scope and not shut[source.scope] then redis.call('ZREM', KEYS[5], source.scope) end
    end
    if not source.done then
      source.turn = tonumber(source.jobs[source.at + 1])
      if not found or source.turn < found.turn then found = source end
    end
  end
  return found
end

-- Return the scope in which a job has no room. A scope that is shut for one is shut for all behind it, smaller ones too.
-- A job whose log cannot be written waits in the line of that server.
local function held_up(record, own)
  local provider, model, tokens = record.provider, record.model, tonumber(record.input_estimate or 0)
  if record.server and not usable[record.server] then
    local scope = '@' .. record.server
    shut[scope] = {at = now + AWAY_MS}
    return scope
  end
  -- A run that goes on has its room, and nothing new is asked.
  if record.run or not limited then return nil end
  for _, scope in ipairs(scopes_of(provider, model)) do
    if not shut[scope] then
      local reason, at = full(prefix, scope, limits, tokens, now)
      local later = scope ~= own and tonumber(redis.call('ZSCORE', KEYS[5], scope) or 0) or 0
      if later > now then
        shut[scope] = {reason = reason or 'tokens_per_minute', at = later}
      elseif reason then
        shut[scope] = {reason = reason, at = at}
      end
    end
    if shut[scope] then return scope end
  end
  return nil
end

-- Let a job wait: where it stands already, or in the scope's line, with the turn that it has. Its reader is told why, before its
-- first attempt.
local passed_on = false -- whether there is a job that another worker may be able to start
local function wait(source, id, record, scope)
  local reason, at, line = shut[scope].reason, shut[scope].at, scope
  if source.scope == scope or (reason and source.scope == record.provider .. '/' .. record.model) then
    line, source.done = source.scope, true
  else
    line_up(prefix, id, source.scope, scope, redis.call('ZSCORE', source.key, id), record.owner, record.priority)
    passed_on = passed_on or not reason
  end
  redis.call('ZADD', KEYS[5], at, scope)
  if reason and record.waits_for ~= reason then
    redis.call('HSET', prefix .. ':job:' .. id, 'waits_for', reason)
    local log = prefix .. ':log:' .. id
    if record.attempt == '0' and top_attempt(log) == 0 then
      local position = redis.call('ZRANK', prefix .. ':line:' .. line, id) + 1
      say(log, next_id(log), 'queued', '{"position":' .. position .. ',"reason":"' .. reason .. '"}')
    end
  end
end

local function leave(source, id, record)
  redis.call('ZREM', source.key, id)
  leave_place(prefix, id, source.scope or '', record.owner, record.priority)
  if source.scope then
    redis.call('ZREM', prefix .. ':blocked', id)
    redis.call('HDEL', prefix .. ':job:' .. id, 'line', 'waits_for')
  end
end

local function open(id, record)
  local job, log = prefix .. ':job:' .. id, prefix .. ':log:' .. id
  -- The log may know more than the record, if Redis has lost its last writes: no number is used twice.
  local attempt = math.max(tonumber(record.attempt), top_attempt(log)) + 1
  local started = record.started_ms or now
  local goes_on = attempt > 1 and (record.run or record.continues == '1') and record.base
  local base = goes_on and tonumber(record.base) or attempt
  if record.call and not record.run then
    -- A call that was left open, and that this attempt does not go on with.
    settle(prefix, id, 'estimate', now)
    record.used = redis.call('HGET', job, 'used')
  end
  redis.call('SADD', KEYS[4], id)
  redis.call('HSET', job, 'status', 'running', 'worker', worker, 'attempt', attempt, 'base', base, 'started_ms', started)
  redis.call('HDEL', job, 'restart_reason')
  local opened
  if attempt == 1 or goes_on then
    opened = say(log, attempt .. '-0', 'started', '{"attempt":' .. attempt .. ',' .. record.target .. '}', true)
  else
    redis.call('HDEL', job, 'first_token_ms')
    opened = say(log, attempt .. '-0', 'restarted',
      '{"attempt":' .. attempt .. ',"reason":"' .. (record.restart_reason or 'worker_lost') .. '",' .. record.target .. '}', true)
  end
  if opened then
    redis.call('HSETNX', job, 'call', attempt)
    if limited and not record.run then take(prefix, id, record.provider, record.model, limits, tonumber(record.input_estimate or 0), now) end
    local length = redis.call('XLEN', log)
    claimed[#claimed + 1] = {id, attempt, base, record.request, tonumber(record.created_ms), tonumber(started), now, length,
      record.provider, record.model, tonumber(record.fallback or 0), record.rates, record.used, record.run or '',
      attempt == 1 and '' or record.restart_reason or 'worker_lost', record.traceparent or '', record.server or '',
      record.server and milestones_of(job, log) or {}}
  else
    -- Without its log nobody could read it.
    redis.call('SREM', KEYS[4], id)
    local error = '"code":"log_lost","message":"The log of this job is gone.","retryable":true'
    end_job(prefix, id, 'failed', error, ARGV[6], now)
  end
end

-- The fields of a record that decide what becomes of a job. A missing one is false.
local FIELDS = {'status', 'attempt', 'request', 'created_ms', 'started_ms', 'target', 'restart_reason', 'continues', 'base',
  'leave_grace_s', 'provider', 'model', 'fallback', 'rates', 'used', 'call', 'input_estimate', 'waits_for', 'run', 'owner',
  'priority', 'line', 'traceparent', 'server'}

local function read(id)
  local record = {}
  for i, value in ipairs(redis.call('HMGET', prefix .. ':job:' .. id, unpack(FIELDS))) do record[FIELDS[i]] = value end
  return record
end

-- Let two jobs of one owner change turns: the next one, `id`'s, is for the more urgent one.
local function change_turns(source, id, urgent, owner)
  local turn, later = source.jobs[source.at + 1], redis.call('ZSCORE', source.key, urgent)
  redis.call('ZADD', source.key, turn, urgent, later, id)
  redis.call('ZADD', turns_of(prefix, source.scope or '', owner), 'XX', later, id)
  redis.call('HSET', prefix .. ':job:' .. urgent, 'turn', turn)
  redis.call('HSET', prefix .. ':job:' .. id, 'turn', later)
  for i = source.at + 2, #source.jobs, 2 do
    if source.jobs[i] == urgent then source.jobs[i] = id end
  end
  source.jobs[source.at] = urgent
end

local served = 0

-- Deal with the next turn of a source. Returns whether that is done with; `at(id)` is told whose job it is about.
local function look(source, next_id, at)
  local place = source.scope or false
  local id, record = next_id, read(next_id)
  local owner, waits_here = record.owner, record.status == 'queued' and record.line == place
  if waits_here and record.attempt == '0' then
    id = most_urgent(prefix, source.scope or '', owner, record.priority) or id
    at(id)
    if id ~= next_id then record = read(id) end
  end
  local passed = id == next_id
  if id ~= next_id and (record.status ~= 'queued' or record.line ~= place) then
    -- Its record has expired.
    forget(prefix, id, source.scope or '', owner)
  elseif record.status ~= 'queued' then
    leave(source, id, record)
    redis.call('DEL', ARGV[5] .. id)
    discarded[#discarded + 1] = id
  elseif not waits_here then
    -- It has gone into a line since the source was read.
    passed = true
  elseif record.leave_grace_s and ARGV[7] == '1' and deserted(prefix .. ':present:' .. id, now) then
    leave(source, id, record)
    end_job(prefix, id, 'cancelled', nil, ARGV[6], now)
  else
    local scope = held_up(record, source.scope)
    if scope then
      wait(source, id, record, scope)
    else
      if id ~= next_id then change_turns(source, next_id, id, owner) end
      served = math.max(served, source.turn)
      leave(source, id, record)
      open(id, record)
      passed = true
    end
  end
  return passed
end

-- Deal with a job by which a look has failed, so that those behind it have their turns.
local function put_right(source, id, problem)
  unless_it_is_the_server(problem)
  if mend(prefix, id, now) + clear('set', KEYS[4]) == 0 then
    bury(prefix, id, ARGV[6], now)
    redis.call('ZREM', source.key, id)
    discarded[#discarded + 1] = id
  elseif redis.call('HGET', prefix .. ':job:' .. id, 'status') == 'queued' then
    -- It may have left its place, and what it failed by is gone: the next claim looks again.
    unqueue(prefix, id, source.scope)
    redis.call('HDEL', prefix .. ':job:' .. id, 'line', 'waits_for')
    redis.call('ZADD', KEYS[1], source.turn, id)
  end
end

local looked = 0
while #claimed < at_most and looked < at_most + MOVES do
  local source = next_source()
  if not source then break end
  looked = looked + 1
  local next_id = source.jobs[source.at]
  local id = next_id
  local done, passed = pcall(look, source, next_id, function(other) id = other end)
  if not done then put_right(source, id, passed) end
  if passed then source.at = source.at + 2 end
end
if served > 0 then serve(prefix, served) end

-- The tokens match the jobs that could start: none when all have been looked at, one at least for what this worker left.
local waiting, more = redis.call('ZCARD', KEYS[1]), false
for _, source in ipairs(sources) do more = more or (source.scope and not source.done) end
if passed_on then waiting = math.max(waiting, 1) end
if waiting == 0 and not more then
  redis.call('DEL', KEYS[2])
elseif clear('list', KEYS[2]) > 0 or redis.call('LLEN', KEYS[2]) == 0 then
  redis.call('LPUSH', KEYS[2], 1)
else
  redis.call('LTRIM', KEYS[2], 0, math.max(waiting, 1) - 1)
end
local opens = limited and tonumber(redis.call('ZRANGEBYSCORE', KEYS[5], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2])
return {1, claimed, discarded, opens and opens - now or -1, booked}
