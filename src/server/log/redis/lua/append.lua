-- Stores an event, its number and its key.
-- KEYS: log, channels, meta, events, keys, order
-- ARGV: channel, topic, name, before, after, numbered, key, content, events, bytes, age, keys, channels, key age, epoch, state,
--   removed
local generation, epoch = newest_epoch(KEYS[1])
-- In an epoch that somebody else began, a node first tells what it knows of the one before.
if generation ~= ARGV[15] then return {'unproven'} end
if ARGV[7] ~= '' then
  local known = redis.call('HGET', KEYS[5], ARGV[7])
  if known then return {'known', known} end
end
local meta = redis.call('HMGET', KEYS[3], 'generation', 'sequence', 'bytes')
if not meta[1] then
  if redis.call('SCARD', KEYS[2]) >= tonumber(ARGV[13]) then return {'full'} end
  redis.call('SADD', KEYS[2], ARGV[1])
  meta = {generation, '0', '0'}
end
local sequence = '1'
if meta[1] == generation then
  sequence = whole(meta[2] + 1)
elseif meta[2] ~= '0' then
  redis.call('HSET', KEYS[3], 'end:' .. meta[1], meta[2])
end
local name, data = ARGV[3], ARGV[4]
if ARGV[6] == '1' then data = data .. sequence .. ARGV[5] end
local now = now_ms()
local at = whole(now)
local count = redis.call('XLEN', KEYS[4])
-- A stream that grew too old as a whole is gone without a word.
local bytes = (count > 0 and tonumber(meta[3]) or 0) + #name + #data
redis.call('XADD', KEYS[4], generation .. '-' .. sequence, 't', at, 'n', name, 'd', data)
local age = tonumber(ARGV[11])
bytes = expire(KEYS[4], count + 1, bytes, {events = tonumber(ARGV[9]), bytes = tonumber(ARGV[10]), age = age}, now)
if age > 0 then redis.call('PEXPIRE', KEYS[4], ARGV[11]) else redis.call('PERSIST', KEYS[4]) end
redis.call('HSET', KEYS[3], 'generation', generation, 'sequence', sequence, 'bytes', whole(bytes))
if ARGV[17] == '1' then
  redis.call('HDEL', KEYS[3], 'state:' .. ARGV[16])
elseif ARGV[16] ~= '' then
  redis.call('HSET', KEYS[3], 'state:' .. ARGV[16], generation .. ' ' .. sequence)
end
if ARGV[7] ~= '' then
  redis.call('HSET', KEYS[5], ARGV[7], generation .. ' ' .. sequence .. ' ' .. ARGV[8])
  local length = redis.call('RPUSH', KEYS[6], ARGV[7])
  for _ = 1, math.min(length - tonumber(ARGV[12]), 1000) do
    redis.call('HDEL', KEYS[5], redis.call('LPOP', KEYS[6]))
  end
  redis.call('PEXPIRE', KEYS[5], ARGV[14])
  redis.call('PEXPIRE', KEYS[6], ARGV[14])
end
local place = table.concat({generation, sequence, meta[1], meta[2], at, epoch}, ' ')
redis.call('PUBLISH', ARGV[2], table.concat({place, ' ', #name, '\n', name, data}))
return {'stored', place}
