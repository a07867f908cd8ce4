-- Remembers that numbers up to this one were given out in an epoch, though their events are lost: then clients hear
-- how many are missing.
-- KEYS: epochs, channels, meta
-- ARGV: channel, generation, sequence
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then return 0 end
local meta = redis.call('HMGET', KEYS[3], 'generation', 'sequence')
local generation, sequence = tonumber(ARGV[2]), tonumber(ARGV[3])
if meta[1] and tonumber(meta[1]) > generation then
  local known = redis.call('HGET', KEYS[3], 'end:' .. ARGV[2])
  if tonumber(known or '0') < sequence then redis.call('HSET', KEYS[3], 'end:' .. ARGV[2], ARGV[3]) end
elseif meta[1] == ARGV[2] then
  if tonumber(meta[2]) < sequence then redis.call('HSET', KEYS[3], 'sequence', ARGV[3]) end
else
  if meta[1] then
    redis.call('HSET', KEYS[3], 'end:' .. meta[1], meta[2])
  else
    redis.call('SADD', KEYS[2], ARGV[1])
  end
  redis.call('HSET', KEYS[3], 'generation', ARGV[2], 'sequence', ARGV[3])
  redis.call('HSETNX', KEYS[3], 'bytes', '0')
end
return 1
