-- End a job: the text that is left, the last event, the record, the expiry, in one step. Only its holder may.
-- KEYS: job, log, arq job, the worker's running jobs, the worker's cancels, ended
-- ARGV: job id, worker, attempt, status, retention ms, key prefix, how to settle the call, bookmark of a run that
--       is left behind ('' for none), seq of the first event, entries before it, number of events,
--       then per event: name, data, then the record's fields and values
-- Returns {1 when it ended so, also before (a repeat after a lost reply), 0 when the job is not this worker's any more;
--          ms since somebody asked for its end, -1 when nobody did; its milestones, if its log is elsewhere}.
local id, worker, attempt, status = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local record = redis.call('HMGET', KEYS[1], 'status', 'worker', 'attempt', 'owner', 'chat', 'cancel_ms', 'server')
if record[2] ~= worker or record[3] ~= attempt then return {0, -1} end
local now = now_ms()
local asked = tonumber(record[6] or '')
local function ended()
  return {1, asked and now - asked or -1, record[7] and milestones_of(KEYS[1], KEYS[2]) or {}}
end
if record[1] == status then return ended() end
if record[1] ~= 'running' then return {0, -1} end

local count = tonumber(ARGV[11])
if not append(KEYS[1], KEYS[2], attempt, tonumber(ARGV[9]), tonumber(ARGV[10]), 12, count) then return {0, -1} end
settle(ARGV[6], id, ARGV[7], now)
redis.call('HSET', KEYS[1], 'status', status, 'finished_ms', now, unpack(ARGV, 12 + 2 * count))
redis.call('HDEL', KEYS[1], 'run')
if ARGV[8] ~= '' then orphan(ARGV[6], ARGV[8], now + 5000) end
if record[7] then send_on(ARGV[6], id) end
-- A log of four events is as small as a compacted one.
if record[7] or redis.call('XLEN', KEYS[2]) > 4 then redis.call('ZADD', KEYS[6], now, id) end
redis.call('ZREM', ARGV[6] .. ':owner:' .. record[4] .. ':live', id)
redis.call('DEL', KEYS[3])
redis.call('SREM', KEYS[4], id)
redis.call('SREM', KEYS[5], id)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
leave_chat(record[5], id, ARGV[5])
return ended()
