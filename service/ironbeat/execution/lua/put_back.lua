-- Moves deliveries from unacked back into their lists, each only if it still is unacknowledged.
--
-- KEYS  unacked, unacked_index, then the lists
-- ARGV  1 the highest score that may be moved ('' for any); 2 'RPUSH' (next to be taken) or 'LPUSH';
--       then for each delivery: tag, index of its list, what to put there
-- Returns how many were moved.
local moved = 0
for i = 3, #ARGV, 3 do
  local tag = ARGV[i]
  local due = true
  if ARGV[1] ~= '' then
    local score = redis.call('ZSCORE', KEYS[2], tag)
    due = score and tonumber(score) <= tonumber(ARGV[1])
  end
  if due and redis.call('HDEL', KEYS[1], tag) == 1 then
    redis.call('ZREM', KEYS[2], tag)
    redis.call(ARGV[2], KEYS[3 + tonumber(ARGV[i + 1])], ARGV[i + 2])
    moved = moved + 1
  end
end
return moved
