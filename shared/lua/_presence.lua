-- Say whether nobody reads a job any more, anywhere: every API process has let its word run out.
local function deserted(present, now)
  local found = redis.pcall('ZREVRANGE', present, 0, 0, 'WITHSCORES')
  -- What is no list of ours tells nothing of anybody: the next word that is given replaces it.
  if found.err then return false end
  local longest = found[2]
  return not longest or tonumber(longest) < now
end
