-- Stands before every script of the log. One script is one decision: no other runs in between.

-- The newest epoch, where the log is known to be the one that we left. The replication id changes with each start of
-- a server and with each promotion of a replica: after either, nobody knows what was lost.
local function newest_epoch(key)
  local replication = redis.call('INFO', 'replication')
  local log = redis.call('HMGET', key, 'authority', 'generation', 'epoch')
  if log[1] ~= string.match(replication, 'master_replid:(%x+)') then return nil end
  return log[2], log[3]
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Deletes events from the oldest on until the channel is within its limits, at most so many that nobody else
-- waits for long, and answers how many bytes are left.
local function expire(events, count, bytes, keep, now)
  local from, gone = '-', 0
  while gone < 1000 do
    local too_much = count - gone > keep.events or bytes > keep.bytes
    if not too_much and keep.age == 0 then break end
    local oldest = redis.call('XRANGE', events, from, '+', 'COUNT', 1)[1]
    if not oldest then break end
    local fields = oldest[2]
    if not too_much and tonumber(fields[2]) >= now - keep.age then break end
    bytes = bytes - #fields[4] - #fields[6]
    gone = gone + 1
    from = '(' .. oldest[1]
  end
  if gone > 0 then redis.call('XTRIM', events, 'MAXLEN', count - gone) end
  return bytes
end

-- How far the channels came that were forgotten: those that begin now begin behind it.
local function retired(log)
  local place = redis.call('HGET', log, 'retired')
  if not place then return nil end
  return string.match(place, '(%d+) (%d+)')
end

local function is_later(generation, sequence, than_generation, than_sequence)
  local one, other = tonumber(generation), tonumber(than_generation)
  return one > other or (one == other and tonumber(sequence) > tonumber(than_sequence))
end

-- Deletes all of a channel, and sees to it that none of its ids is given again. Answers how far it had come.
local function forget(log, active, prefix, channel)
  local own = prefix .. ':' .. channel .. ':'
  local head = redis.call('HMGET', own .. 'meta', 'generation', 'sequence')
  redis.call('ZREM', active, channel)
  redis.call('DEL', own .. 'meta', own .. 'events', own .. 'keys', own .. 'key_order')
  if not head[1] then return nil end
  local generation, sequence = retired(log)
  if not generation or is_later(head[1], head[2], generation, sequence) then
    redis.call('HSET', log, 'retired', head[1] .. ' ' .. head[2])
  end
  return head[1], head[2]
end
