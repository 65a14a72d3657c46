-- Keep what names a job as its chat's answer as long as the job. `chat`: its key, false for a job that answers none.
local function leave_chat(chat, id, retention_ms)
  if chat and redis.pcall('GET', chat) == id then redis.call('PEXPIRE', chat, retention_ms) end
end
