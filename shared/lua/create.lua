-- Create a job, its log and its queue entry, or nothing. Whatever may refuse it is judged here, in the same step.
-- KEYS: job, log, queue, arq job, owner's jobs, order of creation, wake, blocked, owner's live jobs,
--       owner's POSTs, the idempotency key, if there is one, the chat, if it answers one (`_chat.lua`, else `_no_chat.lua`)
-- ARGV: job id, arq payload, ms a live job may last, jobs that may wait, key prefix, owner,
--       POSTs a minute, live jobs, cost a day (10^-12 dollars; '' for any), hash of the request ('' without a key), ms an idempotency key lasts,
--       API process that streams the job ('' for none), streams of the owner there, streams in all, ms its word is good for,
--       retention ms of the chat's answer that it interrupts ('' for none), then the record's fields and values
-- Returns {outcome, POSTs of the last minute, ms until they are fewer, the owner's live jobs, …}, where … is for
--   'created'   job id, created ms, the job that it has ended (its chat's waiting answer) and the server that the log of that is on,
--               {} for none, its position in the queue; of a repeat after a lost reply {} and 0
--   'replayed'  job id, created ms, status ('' when the job is gone), the server that its log is on ('' for this one)
--   'mismatch'  nothing: the idempotency key stands for another request
--   'chat'      nothing: the chat has a live answer, which is not to be interrupted
--   'posts', 'jobs', 'budget', 'queue', 'streams'  ms until it may be worth another try (0: nobody knows)
local id, live_ms, prefix, owner = ARGV[1], tonumber(ARGV[3]), ARGV[5], ARGV[6]
local live, posts, key, now = KEYS[9], KEYS[10], ARGV[10] ~= '' and KEYS[11], now_ms()
local process, here, most_streams, lease_ms = ARGV[12], tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])

local taken, fewer_ms = recent(posts, now)
local jobs = live_jobs(prefix, live, tonumber(ARGV[8]), now)
local function answer(outcome, ...)
  return {outcome, taken, fewer_ms, jobs, ...}
end

local existing = redis.call('HGET', KEYS[1], 'created_ms')
if existing then return answer('created', id, tonumber(existing), {}, 0) end

local stored = key and redis.call('GET', key)
if stored then
  local hash, first, created = string.match(stored, '^(%S+) (%S+) (%d+)$')
  if hash ~= ARGV[10] then return answer('mismatch') end
  local status, server = unpack(redis.call('HMGET', prefix .. ':job:' .. first, 'status', 'server'))
  status = status or ''
  if process ~= '' and status ~= '' and not open_stream(prefix, owner, process, here, most_streams, lease_ms, now) then
    return answer('streams', 0)
  end
  return answer('replayed', first, tonumber(created), status, server or '')
end

if chat and chat.is_busy(prefix) then return answer('chat') end
if taken >= tonumber(ARGV[7]) then return answer('posts', fewer_ms) end
-- (One that is to be interrupted makes room, though its worker may take a moment to end it.)
if jobs - (chat and chat.replaces(prefix) or 0) >= tonumber(ARGV[8]) then return answer('jobs', 0) end
local spent_ms = ARGV[9] ~= '' and spent_until(prefix, owner, tonumber(ARGV[9]), now)
if spent_ms then return answer('budget', spent_ms) end
if redis.call('ZCARD', KEYS[3]) + redis.call('ZCARD', KEYS[8]) >= tonumber(ARGV[4]) then return answer('queue', 0) end
if process ~= '' and not open_stream(prefix, owner, process, here, most_streams, lease_ms, now) then
  return answer('streams', 0)
end

local interrupted = chat and chat.take(prefix, id, live_ms)
if interrupted then jobs = jobs - 1 end
redis.call('HSET', KEYS[1], 'status', 'queued', 'created_ms', now, 'attempt', 0, 'losses', 0, 'owner', owner, unpack(ARGV, 17))
redis.call('PEXPIRE', KEYS[1], live_ms)
redis.call('SET', KEYS[4], ARGV[2], 'PX', live_ms)
local created = redis.call('INCR', KEYS[6])
local priority, provider, model = unpack(redis.call('HMGET', KEYS[1], 'priority', 'provider', 'model'))
local turn, position = take_turn(prefix, id, owner, priority, provider, model, created, live_ms)
redis.call('HSET', KEYS[1], 'turn', turn)
redis.call('XADD', KEYS[2], '0-1', 'queued', '{"position":' .. position .. '}')
redis.call('PEXPIRE', KEYS[2], live_ms)

redis.call('ZADD', KEYS[5], created, id)
redis.call('PEXPIRE', KEYS[5], live_ms)
-- Two of the oldest leave for one that comes, if they have expired: the index cannot outgrow the jobs.
for _, old in ipairs(redis.call('ZRANGE', KEYS[5], 0, 1)) do
  if redis.call('EXISTS', prefix .. ':job:' .. old) == 0 then redis.call('ZREM', KEYS[5], old) end
end

redis.call('ZADD', live, now + live_ms, id)
redis.call('PEXPIRE', live, live_ms)
redis.call('RPUSH', posts, now)
redis.call('PEXPIRE', posts, MINUTE_MS)
taken, fewer_ms, jobs = taken + 1, fewer_ms > 0 and fewer_ms or MINUTE_MS, jobs + 1
if key then redis.call('SET', key, ARGV[10] .. ' ' .. id .. ' ' .. now, 'PX', ARGV[11]) end

-- A job that minds being read by nobody waits for its first reader as for one that has left, and a while longer.
local grace_s = redis.call('HGET', KEYS[1], 'leave_grace_s')
if grace_s then
  local present = prefix .. ':present:' .. id
  redis.call('ZADD', present, now + math.max(grace_s * 1000, 10000), 'submit')
  redis.call('PEXPIRE', present, live_ms)
end

if redis.call('LLEN', KEYS[7]) < redis.call('ZCARD', KEYS[3]) then redis.call('LPUSH', KEYS[7], 1) end
local ended = interrupted and {interrupted, redis.call('HGET', prefix .. ':job:' .. interrupted, 'server') or ''} or {}
return answer('created', id, now, ended, position)
