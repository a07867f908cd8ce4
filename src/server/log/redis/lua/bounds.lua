-- What a channel holds.
-- KEYS: log, meta, events
-- ARGV: events, bytes, age
local generation, epoch = newest_epoch(KEYS[1])
if not generation then return {'unproven'} end
local count = redis.call('XLEN', KEYS[3])
if count > 0 then
  local bytes = tonumber(redis.call('HGET', KEYS[2], 'bytes'))
  local keep = {events = tonumber(ARGV[1]), bytes = tonumber(ARGV[2]), age = tonumber(ARGV[3])}
  local left = expire(KEYS[3], count, bytes, keep, now_ms())
  if left ~= bytes then redis.call('HSET', KEYS[2], 'bytes', whole(left)) end
end
local oldest = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
local fields = redis.call('HGETALL', KEYS[2])
if #fields == 0 then
  -- One that begins now begins behind those that are gone.
  local retired_generation, retired_sequence = retired(KEYS[1])
  if retired_generation then fields = {'begin', retired_generation .. ' ' .. retired_sequence} end
end
return {'bounds', generation .. ' ' .. epoch, oldest and oldest[1] or '', fields}
