-- What a worker has to know once a second: keep its lease, find dead workers, find what is due.
-- ARGV: workers, id, unacked, index, lease in seconds, renewal (renew when less is left), visibility timeout, how many,
--   bytes after which what is due is left for the next look, the prefix of started hashes.
-- Gives: [ids whose lease is over], [tag, record, tag, record... of what is due], seconds until the next one is due
--   (text; empty: none).
local workers, id, unacked, index = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local lease, renewal, timeout, many = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local mine = redis.call('ZSCORE', workers, id)
if not mine and redis.call('ZCOUNT', workers, string.format('%.6f', now), '+inf') == 0 then
  -- We are the first to come, and nobody was here to see those leases end: the server was away, or they were at another
  -- one. Who has left us something started gets the time to come back before it is told as lost.
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', workers, '(0', '+inf')) do
    if redis.call('EXISTS', ARGV[10] .. other) == 1 then
      redis.call('ZADD', workers, string.format('%.6f', now + lease), other)
    end
  end
end
if not mine or mine - now < renewal then
  redis.call('ZADD', workers, string.format('%.6f', now + lease), id)
end
local dead = redis.call('ZRANGEBYSCORE', workers, '-inf', string.format('(%.6f', now), 'LIMIT', 0, 10)
local due, bytes = {}, tonumber(ARGV[9])
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', string.format('%.6f', now - timeout), 'LIMIT', 0, many)) do
  local record = redis.call('HGET', unacked, tag) or ''
  due[#due + 1], due[#due + 2] = tag, record
  bytes = bytes - #record
  if bytes <= 0 then break end
end
local next_due = ''
if #due == 0 then
  local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
  if first[2] then next_due = string.format('%.6f', first[2] + timeout - now) end
end
return {dead, due, next_due}
