-- Apply settlements: first those that only acknowledge, all at once, then others in order, each whole or not at all.
-- ARGV: unacked, index, held, started, database of the broker, database of the results, how many only acknowledge and
--   the tags of these, then for each other settlement
--   verdict, tag, number of arguments of its consequences, consequences, arguments of its verdict.
-- Consequences, in order: n, n pairs (list, text), m, m pairs (channel, text), r, r results (key, seconds or '', value).
-- Arguments by verdict:
--   0 ACK, 1 START   none
--   2 RETURN         list, text: to the right end, served next
--   4 REQUEUE        list, text: to the left end, served last
--   5 DELAY          new tag, score
--   6 DEAD           list, text, greatest length
-- An empty tag stands for a delivery that was never recorded: it is always ours, and nothing is to be taken back.
-- Gives the positions, from 0, of settlements whose delivery is no longer ours: nothing of them was applied.
local unacked, index, held, started = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local database, results_database = ARGV[5], ARGV[6]
local width = {['0'] = 0, ['1'] = 0, ['2'] = 2, ['4'] = 2, ['5'] = 2, ['6'] = 3}
local refused, forgotten = {}, {}

-- Whether a stored record says SUCCESS, which is final (wire.md 4.1).
local function final(key)
  local stored = redis.call('GET', key)
  if not stored or not string.find(stored, 'SUCCESS', 1, true) then return false end
  local readable, record = pcall(cjson.decode, stored)
  return readable and type(record) == 'table' and record['status'] == 'SUCCESS'
end

local function store(key, seconds, value)
  -- What is not there yet, as nearly always, is stored by one command.
  local stored
  if seconds == '' then
    stored = redis.call('SET', key, value, 'NX')
  else
    stored = redis.call('SET', key, value, 'EX', seconds, 'NX')
  end
  if not stored then
    if final(key) then return end
    if seconds == '' then
      redis.call('SET', key, value)
    else
      redis.call('SETEX', key, seconds, value)
    end
  end
  redis.call('PUBLISH', key, value)
end

local function consequences(at)
  local count = tonumber(ARGV[at])
  for i = at + 1, at + 2 * count, 2 do redis.call('LPUSH', ARGV[i], ARGV[i + 1]) end
  at = at + 1 + 2 * count
  count = tonumber(ARGV[at])
  for i = at + 1, at + 2 * count, 2 do redis.call('PUBLISH', ARGV[i], ARGV[i + 1]) end
  at = at + 1 + 2 * count
  count = tonumber(ARGV[at])
  if count > 0 and results_database ~= database then redis.call('SELECT', results_database) end
  for i = at + 1, at + 3 * count, 3 do store(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
  if count > 0 and results_database ~= database then redis.call('SELECT', database) end
end

local function apply(verdict, tag, source, at)
  local first, second = ARGV[at], ARGV[at + 1]
  if verdict == '2' then
    redis.call('RPUSH', first, second)
  elseif verdict == '4' then
    redis.call('LPUSH', first, second)
  elseif verdict == '6' then
    redis.call('LPUSH', first, second)
    redis.call('LTRIM', first, 0, ARGV[at + 2] - 1)
  elseif verdict == '5' then
    redis.call('HSET', unacked, first, redis.call('HGET', source, tag))
    redis.call('ZADD', index, second, first)
  elseif verdict == '1' and source == unacked then
    redis.call('HSET', started, tag, redis.call('HGET', unacked, tag))
  end
end

-- Remove tags from a key, as many at once as Lua may unpack with room to spare. Gives how many were there.
local function remove(command, key, tags, from, to)
  local count = 0
  for first = from, to, 4000 do
    count = count + redis.call(command, key, unpack(tags, first, math.min(first + 3999, to)))
  end
  return count
end

-- A record and its index entry come and go together, so either tells whether a delivery is still ours.
local acknowledged = tonumber(ARGV[7])
local at, position = 8 + acknowledged, acknowledged
if remove('HDEL', unacked, ARGV, 8, at - 1) < acknowledged then
  for i = 8, at - 1 do
    if not redis.call('ZSCORE', index, ARGV[i]) and redis.call('HDEL', started, ARGV[i]) == 0 then
      refused[#refused + 1] = i - 8
    end
  end
end
remove('ZREM', index, ARGV, 8, at - 1)
remove('SREM', held, ARGV, 8, at - 1)

while at <= #ARGV do
  local verdict, tag, size = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local waiting = tag ~= '' and redis.call('HEXISTS', unacked, tag) == 1
  local running = tag ~= '' and not waiting and redis.call('HEXISTS', started, tag) == 1
  if waiting or running or tag == '' then
    if size > 0 then consequences(at + 3) end
    apply(verdict, tag, waiting and unacked or started, at + 3 + size)
  else
    refused[#refused + 1] = position
  end
  if waiting then
    forgotten[#forgotten + 1] = tag
    -- After its START it may be settled once more in this batch.
    if verdict == '1' then redis.call('HDEL', unacked, tag) end
  elseif running and verdict ~= '1' then
    redis.call('HDEL', started, tag)
  end
  at = at + 3 + size + width[verdict]
  position = position + 1
end
remove('HDEL', unacked, forgotten, 1, #forgotten)
remove('ZREM', index, forgotten, 1, #forgotten)
remove('SREM', held, forgotten, 1, #forgotten)
return refused
