-- Put a job's milestones into its log on this server, each once, whoever brings them and however often: an opening where it is above the
-- log's top, the end behind whatever is there. From an opening on, appends of its attempt are taken from whom it was opened for.
-- A log that has been lost begins anew with them.
-- KEYS: log, what is kept of the job beside it
-- ARGV: ms to live, worker ('' where the bearer is not who opened the attempt), its attempt, then id, event and data of each milestone
-- Returns {entries in the log, attempt and number of the entry at its top, 1 when it has ended}.
local LAST = {completed = true, failed = true, cancelled = true}
clear('stream', KEYS[1])
clear('hash', KEYS[2])
local log = KEYS[1]

local there = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
local over = there and LAST[there[2][1]] or false
-- Of one that has ended its end has said how long it is kept.
local late = over and not LAST[ARGV[#ARGV - 1]]
for i = 4, #ARGV, 3 do
  if over then break end
  local id, event, data = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if LAST[event] then
    -- Its worker knows its number, also where the log has been lost; nobody else does.
    local attempt, seq = string.match(id, '^(%d+)-(%d+)$')
    local next_attempt, next_seq = string.match(next_id(log), '^(%d+)-(%d+)$')
    if attempt ~= next_attempt or tonumber(next_seq) > tonumber(seq) then id = next_id(log) end
    over = true
  end
  if not there then
    redis.call('XADD', log, id, event, data)
    there = true
    tell(log, id .. '\n' .. event .. '\n' .. data)
  else
    local added = say(log, id, event, data, true)
    if added and event == 'restarted' then redis.call('HDEL', KEYS[2], 'first_token_ms') end
  end
end
local attempt, seq = 0, 0
local top = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
if top then attempt, seq = string.match(top[1], '^(%d+)-(%d+)$') end
if over then
  -- Who has lost the job may not know yet: a second append would fit behind the end, the first of them being refused for it.
  redis.call('HDEL', KEYS[2], 'worker')
elseif ARGV[2] ~= '' and attempt == ARGV[3] then
  redis.call('HSET', KEYS[2], 'worker', ARGV[2])
end
if not late then
  redis.call('PEXPIRE', log, ARGV[1])
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
end
return {redis.call('XLEN', log), tonumber(attempt), tonumber(seq), over and 1 or 0}
