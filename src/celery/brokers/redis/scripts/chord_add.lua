-- Count parts of chords. After chord_rules.
-- ARGV: '1' for parts in the order of their positions or '0', seconds of bookkeeping, of a saved group, of a claim, then
--   for each part: key of the header's group, task id, score, part, token.
-- Gives pairs: number of the part (from 0), the token when the chord is claimed with it, else '' as another holds it.
local claims = {}
for at = 5, #ARGV, 5 do
  local token = ARGV[at + 4]
  local found = chord_part(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], token, ARGV[1], ARGV[2], ARGV[3], ARGV[4])
  if found then
    claims[#claims + 1] = (at - 5) / 5
    claims[#claims + 1] = found == 'claimed' and token or ''
  end
end
return claims
