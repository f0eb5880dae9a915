-- What happens to the keys of a chord (wire.md 4.5), for the scripts that are appended to this one.
-- `base` is the key of the header's group. Seconds are '' where something is kept for ever.

-- What this run knows of chords, by key: holder of the claim, size with those that joined, count. Read once.
local chords = {}
local function chord_known(base, ordered)
  local known = chords[base]
  if not known then
    known = {holder = redis.call('GET', base .. '.c'), size = redis.call('GET', base .. '.s')}
    known.size = known.size and known.size + (redis.call('GET', base .. '.t') or 0)
    known.count = redis.call(ordered == '1' and 'ZCARD' or 'LLEN', base .. '.j')
    chords[base] = known
  end
  return known
end

local function chord_begin(base, size, life)
  chords[base] = nil
  redis.call('DEL', base .. '.c')
  if life == '' then
    redis.call('SET', base .. '.s', size)
  else
    redis.call('SET', base .. '.s', size, 'EX', life)
  end
end

-- Keep the bookkeeping for its time from now on; once for each chord and run, as that is five commands.
local function chord_keep(known, base, life, group_life)
  if life == '' or known.kept then return end
  known.kept = true
  for _, suffix in ipairs({'.j', '.t', '.s', '.d'}) do redis.call('EXPIRE', base .. suffix, life) end
  if group_life ~= '' then redis.call('EXPIRE', base, group_life) end
end

-- Who has the claim of a chord, after parts were counted: 'claimed' to whom completed it, or asks again with the token
-- that has claimed it already; 'held' when another has the claim, and nil when there is nothing to do.
local function chord_claimed(known, base, token, claim)
  if not known.size or known.count < known.size then return nil end
  if not known.holder then
    redis.call('SET', base .. '.c', token, 'NX', 'EX', claim)
    known.holder = token
  end
  return known.holder == token and 'claimed' or 'held'
end

-- Count a part. Gives what chord_claimed does.
local function chord_part(base, id, score, part, token, ordered, life, group_life, claim)
  local known = chord_known(base, ordered)
  if known.holder == 'done' then return nil end
  if redis.call('SADD', base .. '.d', id .. ':' .. score) == 1 then
    if ordered == '1' then
      known.count = known.count + redis.call('ZADD', base .. '.j', score, part)
    else
      known.count = redis.call('RPUSH', base .. '.j', part)
    end
  end
  chord_keep(known, base, life, group_life)
  return chord_claimed(known, base, token, claim)
end

-- The id that a part begins with.
local function chord_member(part)
  local readable, fields = pcall(cjson.decode, part)
  return readable and type(fields) == 'table' and fields[2] or part
end

-- Whether a part is kept already, by the other half of the bookkeeping: `.d` may have been written by this script.
local function chord_kept(base, score, part)
  local member = chord_member(part)
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', base .. '.j', score, score)) do
    if chord_member(other) == member then return true end
  end
  return false
end

-- Of many parts (see chord_parts): the words and what is added of those that `there` does not say are there; and how
-- many are not gone.
local function chord_fresh(at, size, width, there, gone, number)
  local words, added, met, ours = {}, {}, {}, 0
  for i = 0, size - 1 do
    if not gone[number + i] then
      local word, from = ARGV[at + i], at + size + width * i
      ours = ours + 1
      if not met[word] and not there(i, word, from) then
        met[word] = true
        words[#words + 1] = word
        for place = from, from + width - 1 do added[#added + 1] = ARGV[place] end
      end
    end
  end
  return words, added, ours
end

-- Count many parts of one chord, at most a thousand, with two commands or three: ARGV has their words from `at` on, then what is
-- added, of each score and part, or just the part. Those whose numbers are in `gone`, which counts from `number`, are
-- left out. Gives what chord_claimed does; whoever has the last of the others is to ask again.
local function chord_parts(base, at, size, gone, number, token, ordered, life, group_life, claim)
  local known = chord_known(base, ordered)
  if known.holder == 'done' then return nil end
  local set, width, command, fresh, count = base .. '.d', 1, 'RPUSH', false, 0
  local there
  if ordered == '1' then width, command = 2, 'ZADD' end
  if ordered == '1' and next(gone) == nil then
    -- All are new, as nearly always: this says so, and notes them. Else which were is to be seen from the parts.
    fresh = redis.call('SADD', set, unpack(ARGV, at, at + size - 1)) == size
    there = function(_, _, from) return chord_kept(base, ARGV[from], ARGV[from + 1]) end
  else
    -- Redis before 6.2 has no SMISMEMBER.
    local all = redis.pcall('SMISMEMBER', set, unpack(ARGV, at, at + size - 1))
    there = function(i, word) return (all.err and redis.call('SISMEMBER', set, word) or all[i + 1]) == 1 end
  end
  if fresh then
    count = redis.call(command, base .. '.j', unpack(ARGV, at + size, at + (1 + width) * size - 1))
  else
    local words, added, ours = chord_fresh(at, size, width, there, gone, number)
    if ours == 0 then return nil end
    if #words > 0 then
      redis.call('SADD', set, unpack(words))
      count = redis.call(command, base .. '.j', unpack(added))
    end
  end
  if ordered == '1' then
    known.count = known.count + count
  elseif count > 0 then
    known.count = count
  end
  chord_keep(known, base, life, group_life)
  return chord_claimed(known, base, token, claim)
end

-- Whether the token is the claim, or may be it again: when it has ended and nobody else has taken it.
local function chord_holds(base, token)
  local holder = redis.call('GET', base .. '.c')
  return holder == token or (not holder and redis.call('EXISTS', base .. '.s') == 1)
end

local function chord_close(base, mark)
  chords[base] = nil
  -- What a large one kept is freed beside all else: 35 ms of a hundred thousand parts.
  redis.call('UNLINK', base .. '.j', base .. '.t', base .. '.s', base .. '.d')
  redis.call('SET', base .. '.c', 'done', 'EX', mark)
end

-- Chords whose members are being sent: a sorted set of keys by the time when their producers will have said nothing for
-- too long, and a hash of bodies.
local function chord_sent(base, set, bodies)
  redis.call('ZREM', set, base)
  redis.call('HDEL', bodies, base)
end

local function chord_now()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end
