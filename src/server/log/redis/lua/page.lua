-- The events after a place, as id, time, name and data of each.
-- KEYS: meta, events
-- ARGV: place, events, bytes
local count = redis.call('XLEN', KEYS[2])
if count == 0 then return {} end
local each = math.max(1, tonumber(redis.call('HGET', KEYS[1], 'bytes')) / count)
local left, room = tonumber(ARGV[2]), tonumber(ARGV[3])
local from, page = '(' .. ARGV[1], {}
while left > 0 do
  -- As many as will probably do: what is read and not sent is work for nothing.
  local wanted = math.max(1, math.min(left, 64, math.ceil(room / each)))
  local found = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', wanted)
  for _, event in ipairs(found) do
    local fields = event[2]
    room = room - #fields[4] - #fields[6]
    if room < 0 and #page > 0 then return page end
    page[#page + 1] = event[1]
    page[#page + 1] = fields[2]
    page[#page + 1] = fields[4]
    page[#page + 1] = fields[6]
    from = '(' .. event[1]
  end
  left = left - wanted
  if #found < wanted or room <= 0 then break end
end
return page
