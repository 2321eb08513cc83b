-- Takes acknowledgements, and hands out messages that are recorded as unacknowledged in the same
-- step, so that no moment exists in which a message stands nowhere.
--
-- KEYS  unacked, unacked_index, then the lists to take from, in order of precedence
-- ARGV  1 how many messages at most; 2 a budget of microseconds; 3 prefix of the delivery tags;
--       4 number of acknowledgements, then their tags;
--       then for each list: the microseconds one of its messages is expected to take (0: unknown
--       and irrelevant), and what ends its record, or '' for messages that nobody acknowledges
-- Returns {index of list, message, index of list, message, ...}.
--
-- Redis refuses a script under memory pressure only before its first write, and RPOP, HDEL and ZREM
-- are never refused: a full broker can still be emptied.
local base = 4 + tonumber(ARGV[4])
if base > 4 then
  redis.call('HDEL', KEYS[1], unpack(ARGV, 5, base))
  redis.call('ZREM', KEYS[2], unpack(ARGV, 5, base))
end

local left, budget = tonumber(ARGV[1]), tonumber(ARGV[2])
if left <= 0 then return {} end

local taken, count = {}, 0
local now = redis.call('TIME')
local score = now[1] .. '.' .. string.format('%06d', now[2])
for k = 3, #KEYS do
  local cost = tonumber(ARGV[base + 2 * (k - 2) - 1])
  local want = left
  if cost > 0 then want = math.min(left, math.floor(budget / cost)) end
  if want < 1 then
    if count == 0 then
      want = 1
    elseif redis.call('EXISTS', KEYS[k]) == 1 then
      break
    end
  end
  if want >= 1 then
    local messages = redis.call('RPOP', KEYS[k], want)
    if messages then
      local tail = ARGV[base + 2 * (k - 2)]
      local records, scores = {}, {}
      for i, message in ipairs(messages) do
        local tag = ARGV[3] .. count
        count = count + 1
        taken[2 * count - 1] = k - 3
        taken[2 * count] = message
        records[2 * i - 1] = tag
        records[2 * i] = '[' .. message .. tail
        scores[2 * i - 1] = score
        scores[2 * i] = tag
      end
      if tail ~= '' then
        redis.call('HSET', KEYS[1], unpack(records))
        redis.call('ZADD', KEYS[2], unpack(scores))
      end
      left = left - #messages
      budget = budget - #messages * cost
      if left <= 0 then break end
    end
  end
end

-- Reading the empty lists makes the server remember this connection (CLIENT TRACKING), and tell it
-- when anything is put into one of them.
if count == 0 then redis.call('EXISTS', unpack(KEYS, 3)) end
return taken
