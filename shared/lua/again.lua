-- Open a job's next attempt in the hands of the worker that holds it: its provider failed, and is asked again, or another,
-- where there is room for it; or its run goes on there, and is listened to again, in the room that it has.
-- A repeat of one that was let in is not counted again.
-- KEYS: job, log, pauses
-- ARGV: job id, worker, attempt that failed, reason ('' to go on with the run), provider and model as JSON without braces,
--       provider, model, number of the fallback, what a token costs there ('' for unknown), key prefix, how to settle the
--       failed call, the limits by scope as JSON ('' for none), bookmark of a run that is left behind ('' for none)
-- Returns {1, attempt, log length, now, used in all, base, bookmark of the run that goes on or '', its milestones, if its
--         log is elsewhere}, also of a repeat after a lost reply; {0} when the job is not this worker's any more;
--         {2, reason, ms until there is room (0: not known)} when it has to wait.
local id, worker, failed, provider, model, prefix = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[6], ARGV[7], ARGV[10]
local record = redis.call('HMGET', KEYS[1], 'status', 'worker', 'attempt', 'input_estimate')
if record[1] ~= 'running' or record[2] ~= worker then return {0} end
local attempt, now = failed + 1, now_ms()
if tonumber(record[3]) == failed and ARGV[4] == '' then
  if not say(KEYS[2], attempt .. '-0', 'started', '{"attempt":' .. attempt .. ',' .. ARGV[5] .. '}', true) then return {0} end
  redis.call('HSET', KEYS[1], 'attempt', attempt)
elseif tonumber(record[3]) == failed then
  settle(prefix, id, ARGV[11], now)
  redis.call('HDEL', KEYS[1], 'run')
  if ARGV[13] ~= '' then orphan(prefix, ARGV[13], now + 5000) end
  local limited = ARGV[12] ~= '' or redis.call('EXISTS', KEYS[3]) == 1
  local limits = ARGV[12] == '' and {} or cjson.decode(ARGV[12])
  local tokens, scopes = tonumber(record[4] or 0), limited and scopes_of(provider, model) or {}
  for _, scope in ipairs(scopes) do
    local reason, at = full(prefix, scope, limits, tokens, now, true)
    if reason then
      if reason ~= 'rate_limited' then
        -- A word that lapses by itself, should nobody come back.
        local returning = prefix .. ':returning:' .. scope
        redis.call('ZREMRANGEBYSCORE', returning, '-inf', now)
        redis.call('ZADD', returning, math.max(at, now) + 1000, id)
        redis.call('PEXPIRE', returning, math.max(at - now, 0) + 60000)
      end
      return {2, reason, math.max(at - now, 0)}
    end
  end
  local opened = say(KEYS[2], attempt .. '-0', 'restarted',
    '{"attempt":' .. attempt .. ',"reason":"' .. ARGV[4] .. '",' .. ARGV[5] .. '}', true)
  if not opened then return {0} end
  redis.call('HSET', KEYS[1], 'attempt', attempt, 'base', attempt,
    'target', ARGV[5], 'provider', provider, 'model', model, 'fallback', ARGV[8])
  redis.call('HSETNX', KEYS[1], 'call', attempt)
  redis.call('HDEL', KEYS[1], 'first_token_ms')
  if ARGV[9] == '' then redis.call('HDEL', KEYS[1], 'rates') else redis.call('HSET', KEYS[1], 'rates', ARGV[9]) end
  if limited then
    for _, scope in ipairs(scopes) do redis.call('ZREM', prefix .. ':returning:' .. scope, id) end
    take(prefix, id, provider, model, limits, tokens, now)
    reopen(prefix, scopes)
  end
elseif tonumber(record[3]) ~= attempt then
  return {0}
end
record = redis.call('HMGET', KEYS[1], 'used', 'base', 'run', 'server')
return {1, attempt, redis.call('XLEN', KEYS[2]), now, record[1], tonumber(record[2]), record[3] or '',
  record[4] and milestones_of(KEYS[1], KEYS[2]) or {}}
