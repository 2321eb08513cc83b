-- Stores task states as Celery's Redis backend does, many in one step.
--
-- ARGV  for each state: its key, its value, and after how many seconds it expires (0: never)
for i = 1, #ARGV, 3 do
  if ARGV[i + 2] ~= '0' then
    redis.call('SET', ARGV[i], ARGV[i + 1], 'EX', ARGV[i + 2])
  else
    redis.call('SET', ARGV[i], ARGV[i + 1])
  end
  redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
