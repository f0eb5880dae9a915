-- Bind queues that expire, and sweep away exchanges whose last binding did (wire.md 3.3).
-- ARGV: deadlines, life of a binding in ms, prefix of binding sets, prefix of permanent sets, then pairs: exchange, member.
local deadlines, life, bindings, permanent = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 5, #ARGV, 2 do
  redis.call('SADD', bindings .. ARGV[at], ARGV[at + 1])
  redis.call('ZADD', deadlines, 'GT', now + life, ARGV[at])
end
for _, exchange in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '-inf', now, 'LIMIT', 0, 100)) do
  if redis.call('EXISTS', permanent .. exchange) == 0 then redis.call('DEL', bindings .. exchange) end
  redis.call('ZREM', deadlines, exchange)
end
return 1
