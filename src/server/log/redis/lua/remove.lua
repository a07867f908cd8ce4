-- Forgets a channel, and tells those who listen.
-- KEYS: log, active channels
-- ARGV: prefix, channel, topic
local generation = newest_epoch(KEYS[1])
if not generation then return {'unproven'} end
local head_generation, head_sequence = forget(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
if head_generation then
  local retired_generation, retired_sequence = retired(KEYS[1])
  redis.call('PUBLISH', ARGV[3], table.concat(
    {'removed', head_generation, head_sequence, retired_generation, retired_sequence, generation}, ' '))
end
return {'removed'}
