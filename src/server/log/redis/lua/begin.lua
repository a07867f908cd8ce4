-- Begins an epoch, unless the newest one is this server's own and `force` is 0.
-- KEYS: log, epochs, active channels, channels of older releases
-- ARGV: name, least number, force
if redis.call('EXISTS', KEYS[4]) == 1 then
  for _, channel in ipairs(redis.call('SMEMBERS', KEYS[4])) do redis.call('ZADD', KEYS[3], 'NX', now_ms(), channel) end
  redis.call('DEL', KEYS[4])
end
local generation, epoch = newest_epoch(KEYS[1])
if generation and ARGV[3] == '0' then return {'begun', generation .. ' ' .. epoch} end
local authority = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local last = tonumber(redis.call('HGET', KEYS[1], 'generation') or '-1')
-- Seconds since 2025: greater than every number before it, even where the log was lost and nobody remembers.
local seconds = math.max(0, redis.call('TIME')[1] - 1735689600)
local number = whole(math.max(seconds, last + 1, tonumber(ARGV[2])))
redis.call('HSET', KEYS[2], number, ARGV[1])
redis.call('HSET', KEYS[1], 'authority', authority, 'generation', number, 'epoch', ARGV[1])
return {'begun', number .. ' ' .. ARGV[1]}
