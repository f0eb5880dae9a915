-- Take everything out of a private queue, the oldest first, without a record.
-- ARGV: its lists.
local found = {}
for _, list in ipairs(ARGV) do
  local texts = redis.call('LRANGE', list, 0, -1)
  for i = #texts, 1, -1 do found[#found + 1] = texts[i] end
  redis.call('DEL', list)
end
return found
