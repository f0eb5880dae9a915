-- Look at what a dead worker left, and take over what it had started.
-- ARGV: workers, id of the dead, its held set, its started hash, our started hash, unacked, index, how many,
--   bytes after which the rest is left for the next time, '1' to leave workers whose lease is running alone, its claim,
--   the list of what comes to it, seconds in which a command of it may still arrive.
-- A claim that it has not recorded goes back as it was, the latest first. What came is recorded, and nothing can follow.
-- Gives: [tag, record, ... of what it held, the latest first], [tag, record, ... of what it had started, now ours].
-- When both are empty nothing is left of it, and its id is forgotten.
local workers, id, held, started, ours = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local unacked, index, many = ARGV[6], ARGV[7], tonumber(ARGV[8])
if ARGV[10] == '1' then
  local time = redis.call('TIME')
  local lease = redis.call('ZSCORE', workers, id)
  if lease and tonumber(lease) > time[1] + time[2] / 1000000 then return {{}, {}} end
end
local claim = ARGV[11]
local source = redis.call('LINDEX', claim, -1)
for _ = 2, redis.call('LLEN', claim) do redis.call('RPUSH', source, redis.call('LPOP', claim)) end
redis.call('DEL', claim)
local list = ARGV[12]
local came = redis.pcall('LRANGE', list, 0, -1)
if not came.err and #came > 0 then
  local time = redis.call('TIME')
  for i = 1, #came - 1 do
    local tag = string.format('%s.came%09d', id, #came - i)
    redis.call('HSET', unacked, tag, '[' .. came[i] .. came[#came])
    redis.call('ZADD', index, string.format('%d.%06d', time[1], time[2]), tag)
    redis.call('SADD', held, tag)
  end
  redis.call('SET', list, '', 'EX', ARGV[13])
end
local entries = {}
for _, tag in ipairs(redis.call('SMEMBERS', held)) do
  local score = redis.call('ZSCORE', index, tag)
  if score then
    entries[#entries + 1] = {tonumber(score), tag}
  else
    redis.call('SREM', held, tag)
  end
end
table.sort(entries, function(a, b) return a[1] > b[1] or a[1] == b[1] and a[2] > b[2] end)
local lying, running, bytes = {}, {}, tonumber(ARGV[9])
for i = 1, math.min(many, #entries) do
  local tag = entries[i][2]
  local record = redis.call('HGET', unacked, tag) or ''
  lying[#lying + 1], lying[#lying + 2] = tag, record
  bytes = bytes - #record
  if bytes <= 0 then break end
end
for _, tag in ipairs(started ~= ours and redis.call('HKEYS', started) or {}) do
  if bytes <= 0 then break end
  local record = redis.call('HGET', started, tag)
  redis.call('HSET', ours, tag, record)
  redis.call('HDEL', started, tag)
  running[#running + 1], running[#running + 2] = tag, record
  bytes = bytes - #record
end
if #lying == 0 and #running == 0 then redis.call('ZREM', workers, id) end
return {lying, running}
