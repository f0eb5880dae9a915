-- Apply settlements, each whole or not at all, in order.
-- ARGV: unacked, index, held, started, database of the broker, database of the results, then for each settlement
--   verdict, tag, n, n pairs (list, text), m, m pairs (channel, text), r, r results (key, seconds or '', value)
-- and, by verdict:
--   0 ACK, 1 START   nothing more
--   2 RETURN         list, text: to the right end, served next
--   4 REQUEUE        list, text: to the left end, served last
--   5 DELAY          new tag, score
--   6 DEAD           list, text, greatest length
-- An empty tag stands for a delivery that was never recorded: it is always ours, and nothing is to be taken back.
-- Gives the positions, from 0, of settlements whose delivery is no longer ours: nothing of them was applied.
local unacked, index, held, started = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local database, results_database = ARGV[5], ARGV[6]
local refused = {}
local forget = {}
local at, position = 7, 0

local function next_argument()
  at = at + 1
  return ARGV[at - 1]
end

-- Whether a stored record says SUCCESS, which is final (wire.md 4.1).
local function final(key)
  local stored = redis.call('GET', key)
  if not stored or not string.find(stored, 'SUCCESS', 1, true) then return false end
  local readable, record = pcall(cjson.decode, stored)
  return readable and type(record) == 'table' and record['status'] == 'SUCCESS'
end

local function store(key, seconds, value)
  if results_database ~= database then redis.call('SELECT', results_database) end
  if not final(key) then
    if seconds == '' then
      redis.call('SET', key, value)
    else
      redis.call('SETEX', key, seconds, value)
    end
    redis.call('PUBLISH', key, value)
  end
  if results_database ~= database then redis.call('SELECT', database) end
end

local function each(ours, width, effect)
  for _ = 1, tonumber(next_argument()) do
    if ours then effect(ARGV[at], ARGV[at + 1], ARGV[at + 2]) end
    at = at + width
  end
end

while at <= #ARGV do
  local verdict, tag = next_argument(), next_argument()
  local waiting = tag ~= '' and redis.call('ZSCORE', index, tag)
  local running = tag ~= '' and not waiting and redis.call('HEXISTS', started, tag) == 1
  local ours = tag == '' or waiting or running
  each(ours, 2, function(list, text) redis.call('LPUSH', list, text) end)
  each(ours, 2, function(channel, text) redis.call('PUBLISH', channel, text) end)
  each(ours, 3, store)
  if verdict == '1' then
    if waiting then redis.call('HSET', started, tag, redis.call('HGET', unacked, tag)) end
  elseif verdict ~= '0' then
    local first, second = next_argument(), next_argument()
    local longest = verdict == '6' and next_argument()
    if not ours then
      -- Another has it.
    elseif verdict == '2' then
      redis.call('RPUSH', first, second)
    elseif verdict == '4' then
      redis.call('LPUSH', first, second)
    elseif verdict == '5' then
      local record = redis.call('HGET', waiting and unacked or started, tag)
      redis.call('HSET', unacked, first, record)
      redis.call('ZADD', index, second, first)
    elseif verdict == '6' then
      redis.call('LPUSH', first, second)
      redis.call('LTRIM', first, 0, longest - 1)
    end
  end
  if waiting then
    redis.call('ZREM', index, tag)
    forget[#forget + 1] = tag
  elseif running and verdict ~= '1' then
    redis.call('HDEL', started, tag)
  elseif not ours then
    refused[#refused + 1] = position
  end
  position = position + 1
end
for first = 1, #forget, 4000 do
  local last = math.min(first + 3999, #forget)
  redis.call('HDEL', unacked, unpack(forget, first, last))
  redis.call('SREM', held, unpack(forget, first, last))
end
return refused
