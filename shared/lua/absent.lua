-- Name the jobs that nobody reads any more.
-- KEYS: who is present, one sorted set a job
-- ARGV: the jobs' ids, in the same order
-- Returns the ids of the deserted ones.
local now, absent = now_ms(), {}
for i, present in ipairs(KEYS) do
  if deserted(present, now) then absent[#absent + 1] = ARGV[i] end
end
return absent
