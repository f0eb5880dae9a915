-- Send a dead letter again, unless somebody else has done so.
-- ARGV: list of dead letters, the letter, list of the queue, the message. Gives how many were sent: 0 or 1.
if redis.call('LREM', ARGV[1], -1, ARGV[2]) == 0 then return 0 end
redis.call('LPUSH', ARGV[3], ARGV[4])
return 1
