-- Settle the first message that a wait has moved into the worker's list, if it is still there; else record it.
-- ARGV: unacked, index, held, the list, tag; where it is settled also the key of its result ('': none), seconds or '',
--   value.
-- Where something is stored under that key already, it is recorded all the same: `settle` knows what may replace what.
-- Gives 0: it is not ours any more, 1: it is recorded, 2: it is settled.
local list, tag, key, seconds, value = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
-- It is no list when somebody has taken over.
local length = redis.pcall('LLEN', list)
if type(length) ~= 'number' or length < 2 then return 0 end
local suffix = redis.call('LINDEX', list, -1)

local function stored()
  if key == '' then return true end
  local reply
  if seconds == '' then
    reply = redis.pcall('SET', key, value, 'NX')
  else
    reply = redis.pcall('SET', key, value, 'EX', seconds, 'NX')
  end
  return reply and reply.ok and type(redis.pcall('PUBLISH', key, value)) == 'number'
end

local settled = key and stored()
if not settled then
  local time = redis.call('TIME')
  redis.call('HSET', ARGV[1], tag, '[' .. redis.call('LINDEX', list, -2) .. suffix)
  redis.call('ZADD', ARGV[2], string.format('%d.%06d', time[1], time[2]), tag)
  redis.call('SADD', ARGV[3], tag)
end
-- Last, should any of that be refused.
redis.call('LTRIM', list, 0, -3)
redis.call('RPUSH', list, suffix)
return settled and 2 or 1
