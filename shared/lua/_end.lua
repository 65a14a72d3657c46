-- End a job that no worker holds any more: its open call settled by an estimate, as the provider's own figure died with the
-- worker; last event, record, expiry; all in one step. `error` is JSON without braces, for one that failed.
local function end_job(prefix, id, status, error, retention_ms, now)
  local job, log = prefix .. ':job:' .. id, prefix .. ':log:' .. id
  settle(prefix, id, 'estimate', now)
  orphan_of(prefix, job, now)
  if error then redis.call('HSET', job, 'error', '{' .. error .. '}') end
  say(log, next_id(log), status, '{' .. (error and error .. ',' or '') .. '"usage":' .. usage_json(job) .. '}')
  redis.call('HSET', job, 'status', status, 'finished_ms', now)
  local owner, chat, server = unpack(redis.call('HMGET', job, 'owner', 'chat', 'server'))
  redis.call('ZREM', prefix .. ':owner:' .. owner .. ':live', id)
  redis.call('DEL', 'arq:job:' .. id)
  if server or redis.call('XLEN', log) > 4 then redis.call('ZADD', prefix .. ':ended', now, id) end
  redis.call('PEXPIRE', job, retention_ms)
  redis.call('PEXPIRE', log, retention_ms)
  leave_chat(chat, id, retention_ms)
  local asked = status == 'cancelled' and tonumber(redis.call('HGET', job, 'cancel_ms') or '')
  book_end(status, error and string.match(error, '"code":"([a-z_]+)"') or '', asked and now - asked or -1)
end
