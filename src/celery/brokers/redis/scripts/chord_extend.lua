-- One more member for a chord (wire.md 4.5, `.t`); once for each word, so that a caller who heard nothing may ask again.
-- ARGV: key of the header's group, a word, seconds of bookkeeping or ''.
if redis.call('SADD', ARGV[1] .. '.d', 'extended:' .. ARGV[2]) == 1 then redis.call('INCR', ARGV[1] .. '.t') end
if ARGV[3] ~= '' then
  redis.call('EXPIRE', ARGV[1] .. '.d', ARGV[3])
  redis.call('EXPIRE', ARGV[1] .. '.t', ARGV[3])
end
