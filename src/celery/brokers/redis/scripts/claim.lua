-- Take messages out of queues and record them as held, in one step.
-- ARGV: unacked, index, held, how many, tag prefix, number of the first tag, then pairs: list, record suffix.
-- Gives pairs: number of the pair (from 0), envelope. Tags are the prefix and consecutive numbers, in that order.
local unacked, index, held = ARGV[1], ARGV[2], ARGV[3]
local wanted, prefix, number = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local found, records, scores, tags = {}, {}, {}, {}
local time
for at = 7, #ARGV, 2 do
  local list = ARGV[at]
  local taken = redis.call('LRANGE', list, -wanted, -1)
  local count = #taken
  if count > 0 then
    redis.call('LTRIM', list, 0, -count - 1)
    if not time then
      local now = redis.call('TIME')
      time = now[1] + now[2] / 1000000
    end
    for i = count, 1, -1 do
      local tag = string.format('%s%d', prefix, number)
      number = number + 1
      found[#found + 1] = (at - 7) / 2
      found[#found + 1] = taken[i]
      records[#records + 1] = tag
      records[#records + 1] = '[' .. taken[i] .. ARGV[at + 1]
      -- A microsecond apart, so that the index keeps the order too.
      scores[#scores + 1] = string.format('%.6f', time + #tags / 1000000)
      scores[#scores + 1] = tag
      tags[#tags + 1] = tag
    end
    wanted = wanted - count
    if wanted == 0 then break end
  end
end
if #tags > 0 then
  redis.call('HSET', unacked, unpack(records))
  redis.call('ZADD', index, unpack(scores))
  redis.call('SADD', held, unpack(tags))
end
return found
