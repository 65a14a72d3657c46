-- A job whose log is kept on another server (`server` in its record) has only its milestones in the log here: its openings and its end,
-- as nobody but scripts here may decide on them. What is new of them is to be taken there; until it has been, this says so.
local LONGEST_MS = 8 * 86400000 -- a day more than a job waits: what is noted for a server that never comes back goes by itself

local function note_unsent(key, id)
  redis.call('ZADD', key, now_ms(), id)
  redis.call('PEXPIRE', key, LONGEST_MS)
end

local function send_on(prefix, id)
  local server = redis.call('HGET', prefix .. ':job:' .. id, 'server')
  if server then note_unsent(prefix .. ':unsent:' .. server, id) end
  return server
end
