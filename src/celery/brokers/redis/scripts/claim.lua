-- Take messages out of queues and record them as held, in one step.
-- ARGV: unacked, index, held, how many, tag prefix, number of the first tag, then pairs: list, record suffix.
-- Gives pairs: number of the pair (from 0), envelope. Tags are the prefix and consecutive numbers, in that order.
local unacked, index, held = ARGV[1], ARGV[2], ARGV[3]
local wanted, prefix, number = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local found, records, tags = {}, {}, {}
for at = 7, #ARGV, 2 do
  local list, suffix = ARGV[at], ARGV[at + 1]
  local taken = redis.call('LRANGE', list, -wanted, -1)
  local count = #taken
  if count > 0 then
    redis.call('LTRIM', list, 0, -count - 1)
    for i = count, 1, -1 do
      local text, tag = taken[i], prefix .. (number + #tags)
      found[#found + 1] = (at - 7) / 2
      found[#found + 1] = text
      records[#records + 1] = tag
      records[#records + 1] = '[' .. text .. suffix
      tags[#tags + 1] = tag
    end
    wanted = wanted - count
    if wanted == 0 then break end
  end
end
local count = #tags
if count > 0 then
  local time = redis.call('TIME')
  local scores = {}
  -- A microsecond apart, so that the index keeps the order too; the latest first, which a short sorted set likes.
  for i = count, 1, -1 do
    scores[#scores + 1] = string.format('%d.%06d', time[1], math.min(time[2] + i, 999999))
    scores[#scores + 1] = tags[i]
  end
  redis.call('HSET', unacked, unpack(records))
  redis.call('ZADD', index, unpack(scores))
  redis.call('SADD', held, unpack(tags))
end
return found
