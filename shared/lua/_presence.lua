-- Say whether nobody reads a job any more, anywhere: every API process has let its word run out.
local function deserted(present, now)
  local longest = redis.call('ZREVRANGE', present, 0, 0, 'WITHSCORES')[2]
  return not longest or tonumber(longest) < now
end
