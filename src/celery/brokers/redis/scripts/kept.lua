-- After settle, in the same transaction: which of the messages recorded before it are ours. The others were not sent, so
-- their records go.
-- ARGV: unacked, index, tags.
-- Gives the tags that are ours.
local ours = {}
for i = 3, #ARGV do
  if redis.call('ZSCORE', ARGV[2], ARGV[i]) then
    ours[#ours + 1] = ARGV[i]
  else
    redis.call('HDEL', ARGV[1], ARGV[i])
  end
end
return ours
