-- Record the first message that a wait has moved into the worker's list, if it is still there.
-- ARGV: unacked, index, held, the list, tag.
local list, tag = ARGV[4], ARGV[5]
-- It is no list when somebody has taken over.
local words = redis.pcall('LRANGE', list, -2, -1)
if words.err or #words < 2 then return 0 end
local time = redis.call('TIME')
redis.call('HSET', ARGV[1], tag, '[' .. words[1] .. words[2])
redis.call('ZADD', ARGV[2], string.format('%d.%06d', time[1], time[2]), tag)
redis.call('SADD', ARGV[3], tag)
-- Last, should any of that be refused.
redis.call('LTRIM', list, 0, -3)
redis.call('RPUSH', list, words[2])
return 1
