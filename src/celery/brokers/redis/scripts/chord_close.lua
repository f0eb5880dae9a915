-- Forget a chord, unless the claim is void. After chord_rules.
-- ARGV: key of the header's group, token, seconds for which it is marked as done.
if chord_holds(ARGV[1], ARGV[2]) then chord_close(ARGV[1], ARGV[3]) end
