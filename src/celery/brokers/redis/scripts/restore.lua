-- Put records of `unacked` back into their queues: those that are still there.
-- ARGV: unacked, index, held set of their last holder ('': unknown), then for each: tag, text, n, n lists.
-- Gives how many were moved.
local unacked, index, held = ARGV[1], ARGV[2], ARGV[3]
local moved, at = 0, 4
while at <= #ARGV do
  local tag, text, lists = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  if redis.call('ZREM', index, tag) == 1 then
    redis.call('HDEL', unacked, tag)
    for i = at + 3, at + 2 + lists do redis.call('RPUSH', ARGV[i], text) end
    moved = moved + 1
  end
  if held ~= '' then redis.call('SREM', held, tag) end
  at = at + 3 + lists
end
return moved
