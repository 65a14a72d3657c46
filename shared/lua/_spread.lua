-- A job whose log is kept on another server (`server` in its record) has only its milestones in the log here: its openings and its end,
-- as nobody but scripts here may decide on them. What is new of them is to be taken there; until it has been, this says so.
local LONGEST_MS = 8 * 86400000 -- a day more than a job waits: what is noted for a server that never comes back goes by itself

local function note_unsent(key, id)
  local noted = redis.pcall('ZADD', key, now_ms(), id)
  if type(noted) == 'table' and noted.err then
    -- What is no set of ours must not stand in an end's way.
    if not string.find(noted.err, 'WRONGTYPE', 1, true) then error(noted.err) end
    redis.call('DEL', key)
    redis.call('ZADD', key, now_ms(), id)
  end
  redis.call('PEXPIRE', key, LONGEST_MS)
end

local function send_on(prefix, id)
  local server = redis.call('HGET', prefix .. ':job:' .. id, 'server')
  if server then note_unsent(prefix .. ':unsent:' .. server, id) end
  return server
end

-- All milestones of a job whose log is elsewhere, to be taken there: {ms the record lives, {{id, {event, data}}, …}}; {} without any.
local function milestones_of(job, log)
  local ttl = redis.call('PTTL', job)
  local entries = ttl > 0 and redis.call('XRANGE', log, '-', '+') or {}
  return entries[1] and {ttl, entries} or {}
end
