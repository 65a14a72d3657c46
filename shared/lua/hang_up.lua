-- Settle a job's call that has failed, and, if its provider was limiting, let nobody ask that model for a while.
-- A pause never gets shorter; one that begins soon after another, without the provider's word, is twice as long.
-- KEYS: job, pauses
-- ARGV: job id, worker, attempt, key prefix, how to settle the call, provider/model,
--       1 when it was limiting, ms that the provider asks for (0: it does not say), the first pause in ms, the longest,
--       bookmark of a run that is left behind ('' for none)
-- Returns {ms for which the model is not to be asked, 1 when that has begun here}.
local prefix, scope, now = ARGV[4], ARGV[6], now_ms()
local record = redis.call('HMGET', KEYS[1], 'worker', 'attempt')
if record[1] == ARGV[2] and record[2] == ARGV[3] then
  settle(prefix, ARGV[1], ARGV[5], now)
  redis.call('HDEL', KEYS[1], 'run')
  if ARGV[11] ~= '' then orphan(prefix, ARGV[11], now) end
end

local began = false
local pause, over = prefix .. ':pause:' .. scope, tonumber(redis.call('ZSCORE', KEYS[2], scope) or 0)
if ARGV[7] == '1' then
  -- Many calls may be refused at once, and one may be repeated: they are one pause.
  began = over <= now
  local nth = redis.call('HINCRBY', pause, 'nth', began and 1 or 0)
  local asked, first, longest = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
  local ms = asked > 0 and asked or math.min(longest, first * 2 ^ math.min(math.max(nth, 1) - 1, 30))
  over = math.max(over, now + math.floor(ms))
  redis.call('ZADD', KEYS[2], over, scope)
  if began then redis.call('HSET', pause, 'let_in', 0) end
  redis.call('PEXPIRE', pause, over - now + longest)
end
return {math.max(0, over - now), began and 1 or 0}
