-- Open one more stream of an owner, if it may have one.
-- ARGV: key prefix, owner, process, streams of the owner there with this one, streams in all, ms this word is good for
-- Returns 1 when it is open, 0 when there are too many.
return open_stream(ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), now_ms()) and 1 or 0
