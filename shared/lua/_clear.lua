-- Delete what stands under these names, where it is not of this kind. Returns how many there were.
local function clear(kind, ...)
  local cleared = 0
  for _, key in ipairs({...}) do
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then cleared = cleared + redis.call('DEL', key) end
  end
  return cleared
end
