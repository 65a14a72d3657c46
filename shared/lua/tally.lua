-- Add what a process has counted to the figures of this minute, on Redis' clock. A minute that is over does not change any more.
-- KEYS: none
-- ARGV: key prefix, how long to keep a minute (ms), then field, amount, …
-- Returns the minute, since 1970.
local minute = math.floor(now_ms() / 60000)
local figures = ARGV[1] .. ':minute:' .. minute
if redis.call('TYPE', figures).ok ~= 'hash' then redis.call('DEL', figures) end
for i = 3, #ARGV, 2 do redis.call('HINCRBY', figures, ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', figures, ARGV[2])
return minute
