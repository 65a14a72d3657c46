-- A job whose log is kept on another server (`server` in its record) has only its milestones in the log here: its openings and its end,
-- as nobody but scripts here may decide on them. What is new of them is to be taken there; until it has been, this says so.
local function send_on(prefix, id)
  local server = redis.call('HGET', prefix .. ':job:' .. id, 'server')
  if server then redis.call('ZADD', prefix .. ':unsent:' .. server, now_ms(), id) end
  return server
end
