-- Marks deliveries as held by a living worker now, by the server's clock. Those that are gone
-- (acknowledged, or restored meanwhile) are not brought back.
--
-- KEYS  unacked_index        ARGV  tags        Returns how many are still held.
local now = redis.call('TIME')
local score = now[1] .. '.' .. string.format('%06d', now[2])
local held = 0
for _, tag in ipairs(ARGV) do
  if redis.call('ZSCORE', KEYS[1], tag) then
    redis.call('ZADD', KEYS[1], 'XX', score, tag)
    held = held + 1
  end
end
return held
