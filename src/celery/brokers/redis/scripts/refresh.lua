-- Set the scores of what a worker holds to now, so that no visibility timeout runs out (wire.md 6.5).
-- ARGV: index, held.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local entries = {}
for _, tag in ipairs(redis.call('SMEMBERS', ARGV[2])) do
  local score = redis.call('ZSCORE', ARGV[1], tag)
  if score then entries[#entries + 1] = {tonumber(score), tag} end
end
table.sort(entries, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
for i, entry in ipairs(entries) do
  -- A microsecond apart, so that their order stays.
  redis.call('ZADD', ARGV[1], string.format('%.6f', now + i / 1000000), entry[2])
end
return #entries
