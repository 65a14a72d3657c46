-- Look at scopes again that jobs wait for: there may be room in them.
local function reopen(prefix, scopes)
  local waited = false
  for _, scope in ipairs(scopes) do
    if redis.call('ZSCORE', prefix .. ':lines', scope) then
      redis.call('ZADD', prefix .. ':lines', 0, scope)
      waited = true
    end
  end
  if waited then redis.call('LPUSH', prefix .. ':wake', 1) end
end

-- Give back the room that a job's call has. `room`: as the record has it, false where no limit counts the call.
-- `tokens`: what the call has taken, in place of what was guessed.
local function free(prefix, id, room, tokens, now)
  if not room then return end
  local scopes = {}
  for i, part in ipairs(cjson.decode(room)) do
    local scope, guessed, per_minute = part[1], part[2], part[3]
    redis.call('ZREM', prefix .. ':calls:' .. scope, id)
    if per_minute and tokens ~= guessed then
      pour(prefix .. ':tokens_per_minute:' .. scope, tokens - guessed, per_minute, now)
    end
    scopes[i] = scope
  end
  redis.call('HDEL', prefix .. ':job:' .. id, 'room')
  reopen(prefix, scopes)
end
