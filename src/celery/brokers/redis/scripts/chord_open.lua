-- A producer is sending the members of a header, in many steps. After chord_rules.
-- ARGV: key of the header's group, the set of open chords, the hash of their bodies, body, seconds.
-- Gives 1; 0: the chord is closed.
if redis.call('GET', ARGV[1] .. '.c') == 'done' then return 0 end
redis.call('ZADD', ARGV[2], string.format('%.3f', chord_now() + ARGV[5]), ARGV[1])
redis.call('HSETNX', ARGV[3], ARGV[1], ARGV[4])
return 1
