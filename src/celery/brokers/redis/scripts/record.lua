-- Record what was moved into a claim, if it is still ours: after the HSET of its records, in the same transaction.
-- ARGV: unacked, index, held, claim, tags, at most some thousand.
-- Gives 1; 0 when somebody has put the claim back into its queue: then the records are taken back too.
local unacked, index, held, claim = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local tags = {unpack(ARGV, 5)}
if redis.call('DEL', claim) == 0 then
  redis.call('HDEL', unacked, unpack(tags))
  return 0
end
local time = redis.call('TIME')
-- One score for all: entries with equal scores are in the order of their tags.
local score = string.format('%d.%06d', time[1], time[2])
for _, tag in ipairs(tags) do redis.call('ZADD', index, score, tag) end
redis.call('SADD', held, unpack(tags))
return 1
