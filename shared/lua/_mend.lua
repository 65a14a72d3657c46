-- For keys under a job's names that are not of our making: a string where the log should be, a record without its fields. They are
-- looked at only where a step has failed, so that no step asks before; and what has failed is one job, not those beside it.

-- Raise again what is the server's state, not this job's.
local function unless_it_is_the_server(problem)
  local text = type(problem) == 'table' and problem.err or tostring(problem)
  for _, word in ipairs({'OOM', 'READONLY', 'MISCONF', 'NOREPLICAS', 'NOPERM'}) do
    if string.find(text, word, 1, true) then error(text) end
  end
end

-- Clear all names that a job's steps use. What is lost by that was lost when something else was put there: a job whose log or record
-- goes is a job without one, which every step knows.
local function mend(prefix, id, now)
  local job = prefix .. ':job:' .. id
  local cleared = clear('hash', job) + clear('stream', prefix .. ':log:' .. id) + clear('string', 'arq:job:' .. id, prefix .. ':round')
  local owner, priority, line, provider, model, worker, server =
    unpack(redis.call('HMGET', job, 'owner', 'priority', 'line', 'provider', 'model', 'worker', 'server'))
  cleared = cleared + clear('list', prefix .. ':wake')
    + clear('zset', prefix .. ':present:' .. id, prefix .. ':queue', prefix .. ':lines', prefix .. ':blocked', prefix .. ':pauses',
      prefix .. ':ended', prefix .. ':orphans')
  local round = redis.call('GET', prefix .. ':round')
  if round and not tonumber(round) then cleared = cleared + redis.call('DEL', prefix .. ':round') end
  if server then cleared = cleared + clear('zset', prefix .. ':unsent:' .. server) end
  if worker then cleared = cleared + clear('set', prefix .. ':running:' .. worker, prefix .. ':cancels:' .. worker) end
  if owner then
    local day = math.floor(now / 86400000)
    cleared = cleared + clear('zset', prefix .. ':owner:' .. owner .. ':live') + clear('hash', prefix .. ':usage:' .. owner .. ':' .. day)
    for _, place in ipairs({'', line or ''}) do
      cleared = cleared + clear('zset', turns_of(prefix, place, owner))
      for _, class in ipairs(PRIORITIES) do cleared = cleared + clear('zset', lane_of(prefix, place, owner, class)) end
    end
  end
  if provider and model then
    for _, scope in ipairs({provider .. '/' .. model, provider}) do
      cleared = cleared + clear('zset', prefix .. ':line:' .. scope, prefix .. ':calls:' .. scope, prefix .. ':returning:' .. scope)
        + clear('hash', prefix .. ':pause:' .. scope, prefix .. ':requests_per_minute:' .. scope, prefix .. ':tokens_per_minute:' .. scope)
    end
  end
  return cleared
end

-- End a job that no step can work with, by as much of it as can be written.
local function bury(prefix, id, retention_ms, now)
  mend(prefix, id, now)
  local job, log = prefix .. ':job:' .. id, prefix .. ':log:' .. id
  local status, owner, priority, worker, line, room =
    unpack(redis.call('HMGET', job, 'status', 'owner', 'priority', 'worker', 'line', 'room'))
  if status == 'queued' or status == 'running' then
    local error = '"code":"job_damaged","message":"What was kept of this job is damaged.","retryable":true'
    redis.call('HSET', job, 'status', 'failed', 'finished_ms', now, 'error', '{' .. error .. '}')
    for _, name in ipairs({'attempt', 'base'}) do
      local number = redis.call('HGET', job, name) or ''
      if not string.match(number, '^%d+$') or #number > 9 then redis.call('HSET', job, name, 0) end
    end
    pcall(free, prefix, id, room, 0, now)
    redis.call('HDEL', job, 'call', 'run', 'used', 'room', 'worker')
    redis.call('PEXPIRE', job, retention_ms)
    local usage = '{"input_tokens":0,"cached_input_tokens":0,"output_tokens":0,"estimated":true}'
    local told, said = pcall(function() return say(log, next_id(log), 'failed', '{' .. error .. ',"usage":' .. usage .. '}') end)
    book_end('failed', 'job_damaged', -1)
    if told and said then redis.call('PEXPIRE', log, retention_ms) else redis.call('DEL', log) end
  end
  if worker then
    redis.call('SREM', prefix .. ':running:' .. worker, id)
    redis.call('SREM', prefix .. ':cancels:' .. worker, id)
  end
  redis.call('ZREM', prefix .. ':queue', id)
  redis.call('ZREM', prefix .. ':blocked', id)
  if owner then redis.call('ZREM', prefix .. ':owner:' .. owner .. ':live', id) end
  leave_place(prefix, id, '', owner, priority)
  if line then
    redis.call('ZREM', prefix .. ':line:' .. line, id)
    leave_place(prefix, id, line, owner, priority)
  end
  redis.call('DEL', 'arq:job:' .. id)
end

-- Do one step of one job; a second time if it failed by what could be cleared. A job that it fails for all the same is buried.
-- Returns what the step returns; nil for a buried job.
local function insist(prefix, id, retention_ms, now, step)
  for _ = 1, 2 do
    local done, result = pcall(step)
    if done then return result end
    unless_it_is_the_server(result)
    if mend(prefix, id, now) == 0 then break end
  end
  bury(prefix, id, retention_ms, now)
  return nil
end
