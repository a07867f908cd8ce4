-- Stores an event, its number and its key.
-- KEYS: log, active channels, meta, events, keys, order
-- ARGV: channel, topic, name, before, after, numbered, key, content, events, bytes, age, keys, channels, key age, epoch, state,
--   removed, prefix
local generation, epoch = newest_epoch(KEYS[1])
-- In an epoch that somebody else began, a node first tells what it knows of the one before.
if generation ~= ARGV[15] then return {'unproven'} end
if ARGV[7] ~= '' then
  local known = redis.call('HGET', KEYS[5], ARGV[7])
  if known then return {'known', known} end
end
local now, age = now_ms(), tonumber(ARGV[11])
local meta, first = redis.call('HMGET', KEYS[3], 'generation', 'sequence', 'bytes'), '0'
if not meta[1] then
  -- A new channel pays for old ones: those of which all has expired and that nobody listens to are forgotten, more than
  -- one, so that they become fewer. They are deleted without being named as keys, which a cluster would not allow.
  local full = redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[13])
  local old = {}
  if age > 0 then
    old = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', whole(now - age - 1), 'LIMIT', 0, full and 100 or 4)
  end
  for _, channel in ipairs(old) do
    if redis.call('PUBSUB', 'NUMSUB', ARGV[18] .. ':' .. channel .. ':live')[2] > 0 then
      redis.call('ZADD', KEYS[2], now, channel)
    else
      forget(KEYS[1], KEYS[2], ARGV[18], channel)
      redis.call('PUBLISH', ARGV[18] .. '::forgotten', channel)
    end
  end
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[13]) then return {'full'} end
  meta, first = {generation, '0', '0'}, '1'
  local retired_generation, retired_sequence = retired(KEYS[1])
  if retired_generation then
    redis.call('HSET', KEYS[3], 'begin', retired_generation .. ' ' .. retired_sequence)
    if retired_generation == generation then meta[2] = retired_sequence end
  end
end
redis.call('ZADD', KEYS[2], now, ARGV[1])
local sequence = '1'
if meta[1] == generation then
  sequence = whole(meta[2] + 1)
elseif meta[2] ~= '0' then
  redis.call('HSET', KEYS[3], 'end:' .. meta[1], meta[2])
end
local name, data = ARGV[3], ARGV[4]
if ARGV[6] == '1' then data = data .. sequence .. ARGV[5] end
local at = whole(now)
local count = redis.call('XLEN', KEYS[4])
-- A stream that grew too old as a whole is gone without a word.
local bytes = (count > 0 and tonumber(meta[3]) or 0) + #name + #data
redis.call('XADD', KEYS[4], generation .. '-' .. sequence, 't', at, 'n', name, 'd', data)
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
local place = table.concat({generation, sequence, meta[1], meta[2], at, epoch, first}, ' ')
redis.call('PUBLISH', ARGV[2], table.concat({place, ' ', #name, '\n', name, data}))
return {'stored', place}
