-- Take messages out of queues and record them as held, in one step.
-- ARGV: unacked, index, held, how many, bytes, tag prefix, number of the first tag, how many lists, the lists, of each
--   its record suffix.
-- Gives pairs: number of the list (from 0), some of its envelopes; a list may come more than once. Tags are the prefix
-- and consecutive numbers of nine digits, in the order of the envelopes. Stops after so many bytes, but takes one.
-- Lua hashes each string that it is given or makes, all of its bytes: twice for a message is what it takes here.
local lists = tonumber(ARGV[8])
-- How many of them have messages: most lists are empty, and one command costs less than one for each.
local filled = redis.call('EXISTS', unpack(ARGV, 9, 8 + lists))
if filled == 0 then return {} end
local unacked, index, held = ARGV[1], ARGV[2], ARGV[3]
local wanted, bytes, prefix, number = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])
local found, records, tags, count = {}, {}, {}, 0

-- How many messages to look at now: two at first, then what will fit if the rest are like those before.
local function step()
  if count == 0 then return math.min(wanted, 2) end
  local mean = (tonumber(ARGV[5]) - bytes) / count
  return math.max(1, math.min(wanted, math.floor(bytes / mean)))
end

for at = 9, 8 + lists do
  local list, suffix = ARGV[at], ARGV[at + lists]
  local texts, some
  repeat
    local look = step()
    texts = redis.call('LRANGE', list, -look, -1)
    local taken = {}
    for i = #texts, 1, -1 do
      local text = texts[i]
      local tag = string.format('%s%09d', prefix, number + count)
      taken[#texts - i + 1] = text
      count = count + 1
      tags[count] = tag
      records[2 * count - 1], records[2 * count] = tag, '[' .. text .. suffix
      wanted, bytes = wanted - 1, bytes - #text
      if bytes <= 0 then break end
    end
    if #taken > 0 then
      some = true
      redis.call('LTRIM', list, 0, -#taken - 1)
      found[#found + 1], found[#found + 2] = at - 9, taken
    end
  until wanted == 0 or bytes <= 0 or #texts < look
  if some then filled = filled - 1 end
  if filled == 0 or wanted == 0 or bytes <= 0 then break end
end
local time = redis.call('TIME')
-- One score for all: entries with equal scores are in the order of their tags.
local score = string.format('%d.%06d', time[1], time[2])
local scores = {}
-- The latest first, which a short sorted set likes.
for i = count, 1, -1 do
  scores[#scores + 1] = score
  scores[#scores + 1] = tags[i]
end
redis.call('HSET', unacked, unpack(records))
redis.call('ZADD', index, unpack(scores))
redis.call('SADD', held, unpack(tags))
return found
