-- Takes acknowledgements, and hands out messages that are recorded as unacknowledged in the same
-- step, so that no moment exists in which a message stands nowhere.
--
-- KEYS  unacked, unacked_index, then the lists to take from, in order of precedence
-- ARGV  1 how many messages at most; 2 a budget of microseconds; 3 prefix of the delivery tags;
--       4 number of acknowledgements, then their tags;
--       then after how many bytes no more are taken;
--       then for each list: the microseconds one of its messages is expected to take (0: unknown
--       and irrelevant), and what ends its record, or '' for messages that nobody acknowledges
-- Returns {index of list, message, index of list, message, ...}.
--
-- Redis refuses a script under memory pressure only before its first write, and RPOP, HDEL and ZREM
-- are never refused: a full broker can still be emptied.
-- What a message weighs is known once it is taken, so not many are taken at a time.
local STEP = 64
local base = 4 + tonumber(ARGV[4])
if base > 4 then
  redis.call('HDEL', KEYS[1], unpack(ARGV, 5, base))
  redis.call('ZREM', KEYS[2], unpack(ARGV, 5, base))
end

base = base + 1
local left, budget, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[base])
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
  local tail = ARGV[base + 2 * (k - 2)]
  while want >= 1 do
    local step = math.min(want, STEP)
    local messages = redis.call('RPOP', KEYS[k], step) or {}
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
      bytes = bytes - #message
    end
    if tail ~= '' and #messages > 0 then
      redis.call('HSET', KEYS[1], unpack(records))
      redis.call('ZADD', KEYS[2], unpack(scores))
    end
    left = left - #messages
    budget = budget - #messages * cost
    want = want - step
    if bytes <= 0 then left = 0 end
    if left <= 0 or #messages < step then break end
  end
  if left <= 0 then break end
end

-- Reading the empty lists makes the server remember this connection (CLIENT TRACKING), and tell it
-- when anything is put into one of them.
if count == 0 then redis.call('EXISTS', unpack(KEYS, 3)) end
return taken
