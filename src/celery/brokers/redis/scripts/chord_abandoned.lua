-- Claim chords whose producer has said for too long nothing of the header it is sending. After chord_rules.
-- ARGV: the set of open chords, the hash of their bodies, how many at most, '1' for parts in the order of their
--   positions or '0', seconds of a claim, token.
-- Gives triples: key of the header's group, body, token.
local set, bodies, ordered, claim = ARGV[1], ARGV[2], ARGV[4], ARGV[5]
local now, found = chord_now(), {}
for number, base in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', string.format('%.3f', now), 'LIMIT', 0, ARGV[3])) do
  local known = chord_known(base, ordered)
  if known.holder == 'done' or (known.size and known.count >= known.size) then
    chord_sent(base, set, bodies)
  else
    local token = ARGV[6] .. '.' .. number
    if redis.call('SET', base .. '.c', token, 'NX', 'EX', claim) then
      found[#found + 1] = {base, redis.call('HGET', bodies, base), token}
    end
    -- Looked for again when the claim ends, of whoever it is: it may be prolonged, or have a moment left.
    redis.call('ZADD', set, string.format('%.3f', now + math.max(redis.call('PTTL', base .. '.c'), 1) / 1000), base)
  end
end
return found
