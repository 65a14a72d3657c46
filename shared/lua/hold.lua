-- Say how many streams some owners have open in an API process, and prolong its word for all others.
-- KEYS: the process' streams
-- ARGV: key prefix, process, ms this word is good for, then owner and number each
-- Returns 1, or 0 when its word had lapsed: the numbers of all others are to be said again.
-- The field '' is there as long as nothing has lapsed: an opening alone does not bring it back.
local lapsed = redis.call('HSETNX', KEYS[1], '', 1)
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '0' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
prolong(ARGV[1], ARGV[2], tonumber(ARGV[3]), now_ms())
return 1 - lapsed
