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

-- Count many parts of one chord with three commands: words and parts in the order of `scores`, at most a thousand. Gives
-- what chord_claimed does; whoever has the last of them is to ask again.
local function chord_parts(base, ids, scores, parts, token, ordered, life, group_life, claim)
  local known = chord_known(base, ordered)
  if known.holder == 'done' or #ids == 0 then return nil end
  local words, fresh, added, met = {}, {}, {}, {}
  for i, id in ipairs(ids) do words[i] = id .. ':' .. scores[i] end
  local there = redis.pcall('SMISMEMBER', base .. '.d', unpack(words))
  for i, word in ipairs(words) do
    -- Redis before 6.2 has no such command.
    if not met[word] and (there.err and redis.call('SISMEMBER', base .. '.d', word) or there[i]) == 0 then
      met[word] = true
      fresh[#fresh + 1] = word
      if ordered == '1' then added[#added + 1] = scores[i] end
      added[#added + 1] = parts[i]
    end
  end
  if #fresh > 0 then
    redis.call('SADD', base .. '.d', unpack(fresh))
    local count = redis.call(ordered == '1' and 'ZADD' or 'RPUSH', base .. '.j', unpack(added))
    known.count = ordered == '1' and known.count + count or count
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
  redis.call('DEL', base .. '.j', base .. '.t', base .. '.s', base .. '.d')
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
