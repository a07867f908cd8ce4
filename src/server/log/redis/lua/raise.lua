-- Remembers that numbers up to this one were given out in an epoch, though their events are lost: then clients hear
-- how many are missing.
-- KEYS: epochs, active channels, meta, log
-- ARGV: channel, generation, sequence, epoch
local meta = redis.call('HMGET', KEYS[3], 'generation', 'sequence', 'begin')
local generation, sequence = tonumber(ARGV[2]), tonumber(ARGV[3])
-- What is of a channel that was forgotten needs no telling.
local begin_generation, begin_sequence = retired(KEYS[4])
if meta[1] then begin_generation, begin_sequence = string.match(meta[3] or '', '(%d+) (%d+)') end
if begin_generation and not is_later(generation, sequence, begin_generation, begin_sequence) then return 0 end
local epoch = redis.call('HGET', KEYS[1], ARGV[2])
if epoch ~= ARGV[4] then
  if epoch then return 0 end
  -- It was lost with its beginning. A log that has nothing of before begins anew instead.
  local follows = false
  for _, number in ipairs(redis.call('HKEYS', KEYS[1])) do
    follows = follows or tonumber(number) < generation
  end
  if not follows then return 0 end
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[4])
end
if meta[1] and tonumber(meta[1]) > generation then
  local known = redis.call('HGET', KEYS[3], 'end:' .. ARGV[2])
  if tonumber(known or '0') < sequence then redis.call('HSET', KEYS[3], 'end:' .. ARGV[2], ARGV[3]) end
elseif meta[1] == ARGV[2] then
  if tonumber(meta[2]) < sequence then redis.call('HSET', KEYS[3], 'sequence', ARGV[3]) end
else
  if meta[1] then
    redis.call('HSET', KEYS[3], 'end:' .. meta[1], meta[2])
  else
    redis.call('ZADD', KEYS[2], now_ms(), ARGV[1])
    if begin_generation then redis.call('HSET', KEYS[3], 'begin', begin_generation .. ' ' .. begin_sequence) end
  end
  redis.call('HSET', KEYS[3], 'generation', ARGV[2], 'sequence', ARGV[3])
  redis.call('HSETNX', KEYS[3], 'bytes', '0')
end
return 1
