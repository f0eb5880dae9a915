-- Send a dead letter again, unless somebody else has done so.
-- ARGV: list of dead letters, the letter, list of the queue, the message. Gives how many were sent: 0 or 1.
-- The push comes first: it may be refused (no memory, a key of another type), and what was done before stays done.
redis.call('LPUSH', ARGV[3], ARGV[4])
if redis.call('LREM', ARGV[1], -1, ARGV[2]) == 1 then return 1 end
redis.call('LPOP', ARGV[3])
return 0
