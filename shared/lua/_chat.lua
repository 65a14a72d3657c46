-- The chat that a new job answers. Its key (the last of KEYS) names the answer that is the chat's; at most one of them is live and not
-- cancelled, as the script that takes the chat for a new one cancels the older one. ARGV[16]: retention ms of an answer that is
-- interrupted by that; '' where a live one is not to be interrupted.
local chat = {key = KEYS[#KEYS]}

-- The chat's answer, while it is live. What cannot be read is none.
local function live_answer(prefix)
  local id = redis.pcall('GET', chat.key)
  if type(id) ~= 'string' then return nil end
  local status = redis.pcall('HGET', prefix .. ':job:' .. id, 'status')
  return (status == 'queued' or status == 'running') and id or nil
end

function chat.is_busy(prefix)
  return ARGV[16] == '' and live_answer(prefix) ~= nil
end

-- How many live jobs a new one takes the place of.
function chat.replaces(prefix)
  return live_answer(prefix) and 1 or 0
end

-- Make a new job the chat's answer, in the place of one that is live. Returns that one, if it is live no more.
function chat.take(prefix, id, live_ms)
  local older = live_answer(prefix)
  redis.call('SET', chat.key, id, 'PX', live_ms)
  if not older then return nil end
  -- What is damaged is nobody's answer, and holds nobody up.
  local done, how = pcall(cancel_job, prefix, older, ARGV[16])
  return done and how ~= 'cancelling' and older or nil
end
