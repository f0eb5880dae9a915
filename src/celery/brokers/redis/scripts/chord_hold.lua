-- Prolong a claim. After chord_rules.
-- ARGV: key of the header's group, token, seconds.
-- Gives 1; 0: the claim is void.
if not chord_holds(ARGV[1], ARGV[2]) then return 0 end
if redis.call('EXPIRE', ARGV[1] .. '.c', ARGV[3]) == 0 then redis.call('SET', ARGV[1] .. '.c', ARGV[2], 'EX', ARGV[3]) end
return 1
