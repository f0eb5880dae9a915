-- Store result records and tell those who wait; a stored SUCCESS stays (wire.md 4.1, 6.13).
-- ARGV, for each record: key, seconds ('': for ever), value, known.
--   Whether a stored record is final only its reader can tell, as it may be compressed or pickled: what might be is given
--   back, and the caller who found it not to be final passes it as `known` the next time.
-- Gives pairs: number of the record (from 0), what is stored under its key; these were not written.
local undecided = {}

local function write(key, seconds, value, ...)
  if seconds == '' then return redis.call('SET', key, value, ...) end
  return redis.call('SET', key, value, 'EX', seconds, ...)
end

for at = 1, #ARGV, 4 do
  local key, seconds, value = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  -- What is not there yet, as nearly always, is stored by one command.
  local written = write(key, seconds, value, 'NX')
  if not written then
    local stored = redis.call('GET', key)
    if stored ~= ARGV[at + 3] and (string.find(stored, 'SUCCESS', 1, true) or string.sub(stored, 1, 1) == '\0') then
      undecided[#undecided + 1] = (at - 1) / 4
      undecided[#undecided + 1] = stored
    else
      written = write(key, seconds, value)
    end
  end
  if written then redis.call('PUBLISH', key, value) end
end
return undecided
