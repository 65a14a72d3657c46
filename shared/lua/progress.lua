-- Keep what a worker says of calls whose tokens are on other servers: what is known of them should it be lost.
-- ARGV: key prefix, worker, then per job: id, attempt, when its provider began to answer (ms; '' where that has been told), what the call has
--       taken so far as `settle` takes it
for i = 3, #ARGV, 4 do
  local job = ARGV[1] .. ':job:' .. ARGV[i]
  -- (What is no record has no holder: a table in place of names.)
  local held = redis.pcall('HMGET', job, 'worker', 'attempt', 'call')
  if held[1] == ARGV[2] and held[2] == ARGV[i + 1] then
    if ARGV[i + 2] ~= '' then redis.call('HSETNX', job, 'first_token_ms', ARGV[i + 2]) end
    if held[3] then redis.call('HSET', job, 'progress', ARGV[i + 3]) end
  end
end
return 1
