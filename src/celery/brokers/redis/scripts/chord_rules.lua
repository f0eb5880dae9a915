-- What happens to the keys of a chord (wire.md 4.5), for the scripts that are appended to this one.
-- `base` is the key of the header's group. Seconds are '' where something is kept for ever.

local function chord_begin(base, size, life)
  redis.call('DEL', base .. '.c')
  if life == '' then
    redis.call('SET', base .. '.s', size)
  else
    redis.call('SET', base .. '.s', size, 'EX', life)
  end
end

-- Keep the bookkeeping for its time from now on; once for each chord and run, as that is five commands.
local chords_kept = {}
local function chord_keep(base, life, group_life)
  if life == '' or chords_kept[base] then return end
  chords_kept[base] = true
  for _, suffix in ipairs({'.j', '.t', '.s', '.d'}) do redis.call('EXPIRE', base .. suffix, life) end
  if group_life ~= '' then redis.call('EXPIRE', base, group_life) end
end

-- Count a part. Gives 'claimed' to whom completed the chord, or asks again with the token that has claimed it already;
-- 'held' when another has the claim, and nil when there is nothing to do.
local function chord_part(base, id, score, part, token, ordered, life, group_life, claim)
  local holder = redis.call('GET', base .. '.c')
  if holder == 'done' then return nil end
  if redis.call('SADD', base .. '.d', id .. ':' .. score) == 1 then
    if ordered == '1' then
      redis.call('ZADD', base .. '.j', score, part)
    else
      redis.call('RPUSH', base .. '.j', part)
    end
  end
  local count = redis.call(ordered == '1' and 'ZCARD' or 'LLEN', base .. '.j')
  chord_keep(base, life, group_life)
  local size = redis.call('GET', base .. '.s')
  if not size or count < size + (redis.call('GET', base .. '.t') or 0) then return nil end
  if holder == token or redis.call('SET', base .. '.c', token, 'NX', 'EX', claim) then return 'claimed' end
  return 'held'
end

-- Whether the token is the claim, or may be it again: when it has ended and nobody else has taken it.
local function chord_holds(base, token)
  local holder = redis.call('GET', base .. '.c')
  return holder == token or (not holder and redis.call('EXISTS', base .. '.s') == 1)
end

local function chord_close(base, mark)
  redis.call('DEL', base .. '.j', base .. '.t', base .. '.s', base .. '.d')
  redis.call('SET', base .. '.c', 'done', 'EX', mark)
end
