-- The lines of jobs that wait for room in a scope, each in the order of turns. `lines` says when to look at each next.

-- Take a waiting job out of the queue, or out of the line that it stands in.
local function unqueue(prefix, id, line)
  redis.call('ZREM', prefix .. ':queue', id)
  if line then
    redis.call('ZREM', prefix .. ':line:' .. line, id)
    redis.call('ZREM', prefix .. ':blocked', id)
    -- It may have been the one that had no room.
    redis.call('ZADD', prefix .. ':lines', 'XX', 0, line)
  end
end

-- Move a waiting job from where it stands into the line of a scope.
local function line_up(prefix, id, line, scope, turn, owner, priority)
  unqueue(prefix, id, line)
  change_place(prefix, id, line or '', scope, turn, owner, priority)
  redis.call('ZADD', prefix .. ':line:' .. scope, turn, id)
  redis.call('ZADD', prefix .. ':blocked', turn, id)
  redis.call('HSET', prefix .. ':job:' .. id, 'line', scope)
end
