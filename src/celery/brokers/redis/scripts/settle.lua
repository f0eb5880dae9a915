-- Apply settlements: first those that only acknowledge, all at once, then others in order, each whole or not at all.
-- After chord_rules.
-- ARGV: unacked, index, held, started, database of the broker, database of the results,
--   of chords: '1' for parts in the order of their positions or '0', seconds of bookkeeping, of a saved group, of a
--   claim, of a mark,
--   how many only acknowledge, how many acknowledge and have at most one result and one part, the tags of these, then
--   for each other settlement verdict, tag, number of arguments of its consequences, consequences, arguments of its
--   verdict.
-- Before the others may be lists of results, in the order of the tags: 'stored', seconds or '', how many, and of each
--   key, value. After these may be lists of those that are members of one chord besides: 'counted', seconds or
--   '', how many, key of the header's group, token, then of each key, value, then what chord_parts takes. The claim is
--   the last one's.
-- Consequences, in order: those of chords, n, n pairs (list, text) or (held, tag of a message that is recorded in
--   unacked and ours from now on), m, m pairs (channel, text), r, r results (key, seconds or '', value).
-- Of chords, if there are any: 'chords'; 0, or 1, key and token of the chord that this closes; b, b pairs (key, size)
--   that begin; p, p parts (key, task id, score, part, token). Keys are those of groups.
-- A settlement that closes a chord for which its claim is void applies its verdict alone. One whose part gives a claim
-- applies all but its verdict.
-- Arguments by verdict:
--   0 ACK, 1 START   none
--   2 RETURN         list, text: to the right end, served next
--   4 REQUEUE        list, text: to the left end, served last
--   5 DELAY          new tag, score
--   6 DEAD           list, text, greatest length
-- An empty tag stands for a delivery that was never recorded: it is always ours, and nothing is to be taken back.
-- Gives the positions, from 0, of settlements whose delivery is no longer ours, of which nothing was applied; and the
-- claims: position, number of the part, token ('' when another one holds it).
local unacked, index, held, started = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local database, results_database = ARGV[5], ARGV[6]
local width = {['0'] = 0, ['1'] = 0, ['2'] = 2, ['4'] = 2, ['5'] = 2, ['6'] = 3}
local refused, forgotten, claims = {}, {}, {}

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

-- Chords, of the settlement at a position. Gives where other consequences are, or nil when they are void; and whether
-- there are claims.
local function count(at, position)
  local ordered, life, group_life, claim, mark = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
  if ARGV[at] == '1' then
    if not chord_holds(ARGV[at + 1], ARGV[at + 2]) then return nil, false end
    chord_close(ARGV[at + 1], mark)
    at = at + 2
  end
  local begins = tonumber(ARGV[at + 1])
  for i = at + 2, at + 2 * begins, 2 do chord_begin(ARGV[i], ARGV[i + 1], life) end
  at = at + 2 + 2 * begins
  local parts, claimed = tonumber(ARGV[at]), false
  for number = 0, parts - 1 do
    local i = at + 1 + 5 * number
    local token = ARGV[i + 4]
    local found = chord_part(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], token, ordered, life, group_life, claim)
    if found then
      claims[#claims + 1] = {position, number, found == 'claimed' and token or ''}
      claimed = true
    end
  end
  return at + 1 + 5 * parts, claimed
end

local function in_results(work, ...)
  if results_database == database then return work(...) end
  redis.call('SELECT', results_database)
  local first, second = work(...)
  redis.call('SELECT', database)
  return first, second
end

local function store_all(at)
  for i = at + 1, at + 3 * ARGV[at], 3 do store(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
end

-- What would be pushed is in our hands instead, and recorded already.
local function keep(tag)
  local time = redis.call('TIME')
  redis.call('ZADD', index, string.format('%d.%06d', time[1], time[2]), tag)
  redis.call('SADD', held, tag)
end

-- Gives whether the verdict is to be applied now.
local function consequences(at, position)
  local claimed = false
  if ARGV[at] == 'chords' then
    at, claimed = in_results(count, at + 1, position)
    if not at then return true end
  end
  local pushes = 2 * ARGV[at]
  for i = at + 1, at + pushes, 2 do
    if ARGV[i] == held then keep(ARGV[i + 1]) else redis.call('LPUSH', ARGV[i], ARGV[i + 1]) end
  end
  at = at + 1 + pushes
  local channels = 2 * ARGV[at]
  for i = at + 1, at + channels, 2 do redis.call('PUBLISH', ARGV[i], ARGV[i + 1]) end
  at = at + 1 + channels
  if ARGV[at] ~= '0' then in_results(store_all, at) end
  return not claimed
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

-- Of those with at most one result: whose delivery is no longer ours, by the number of the tag from 0.
-- A record and its index entry come and go together, so either tells whether a delivery is still ours; and should a result
-- be refused here, what is without its entry has its record still.
local plain, simple, first = tonumber(ARGV[12]), tonumber(ARGV[13]), 14
local at, position, gone = first + simple, simple, {}
local last, all = at - 1, true
if remove('ZREM', index, ARGV, first, last) < simple then
  all = false
  for i = first, last do
    if redis.call('HEXISTS', unacked, ARGV[i]) == 0 and redis.call('HEXISTS', started, ARGV[i]) == 0 then
      refused[#refused + 1] = i - first
      gone[i - first] = true
    end
  end
end

local function store_some(from, count, seconds, number)
  for i = 0, count - 1 do
    if not gone[number + i] then store(ARGV[from + 2 * i], seconds, ARGV[from + 2 * i + 1]) end
  end
end

while ARGV[at] == 'stored' do
  local seconds, count = ARGV[at + 1], tonumber(ARGV[at + 2])
  in_results(store_some, at + 3, count, seconds, plain)
  plain = plain + count
  at = at + 3 + 2 * count
end

-- Store the results of members, and count them. Gives what chord_parts does.
local function count_some(from, count, seconds, number, base, token)
  store_some(from, count, seconds, number)
  return chord_parts(base, from + 2 * count, count, gone, number, token, ARGV[7], ARGV[8], ARGV[9], ARGV[10])
end

-- Where the tags are of deliveries that stay for their claims, in order.
local stays = {}
while ARGV[at] == 'counted' do
  local seconds, count, base, token = ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3], ARGV[at + 4]
  local found = in_results(count_some, at + 5, count, seconds, plain, base, token)
  plain = plain + count
  at = at + 5 + (ARGV[7] == '1' and 5 or 4) * count
  if found then
    local number = plain - 1
    while gone[number] do number = number - 1 end
    claims[#claims + 1] = {number, 0, found == 'claimed' and token or ''}
    stays[#stays + 1] = first + number
  end
end

local function remove_all(command, key)
  local from = first
  for _, place in ipairs(stays) do
    remove(command, key, ARGV, from, place - 1)
    from = place + 1
  end
  remove(command, key, ARGV, from, last)
end

for _, place in ipairs(stays) do
  if redis.call('HEXISTS', unacked, ARGV[place]) == 1 then keep(ARGV[place]) end
end
remove_all('HDEL', unacked)
if not all then remove_all('HDEL', started) end
remove_all('SREM', held)

while at <= #ARGV do
  local verdict, tag, size = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local waiting = tag ~= '' and redis.call('HEXISTS', unacked, tag) == 1
  local running = tag ~= '' and not waiting and redis.call('HEXISTS', started, tag) == 1
  if not waiting and not running and tag ~= '' then
    refused[#refused + 1] = position
  elseif size == 0 or consequences(at + 3, position) then
    apply(verdict, tag, waiting and unacked or started, at + 3 + size)
    if waiting then
      forgotten[#forgotten + 1] = tag
      -- After its START it may be settled once more in this batch.
      if verdict == '1' then redis.call('HDEL', unacked, tag) end
    elseif running and verdict ~= '1' then
      redis.call('HDEL', started, tag)
    end
  end
  at = at + 3 + size + width[verdict]
  position = position + 1
end
remove('HDEL', unacked, forgotten, 1, #forgotten)
remove('ZREM', index, forgotten, 1, #forgotten)
remove('SREM', held, forgotten, 1, #forgotten)
return {refused, claims}
