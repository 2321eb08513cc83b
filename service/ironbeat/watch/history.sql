-- take_slot: whoever is first in a slot looks for everybody
INSERT INTO ironbeat.samples (at)
VALUES (date_bin(make_interval(secs => %(every)s), clock_timestamp(), '2000-01-01 00:00Z'))
ON CONFLICT (at) DO NOTHING RETURNING at

-- add_queues: how long the queues were in a slot, and how old their oldest message
INSERT INTO ironbeat.queue_samples (at, queue, length, oldest)
SELECT %(at)s, queue, length, oldest
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r (queue text, length integer, oldest float8)
ON CONFLICT DO NOTHING

-- add_limits: the figures of the limits in a slot
INSERT INTO ironbeat.limit_samples (at, name, value, ok)
SELECT %(at)s, name, value, ok
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r (name text, value float8, ok boolean)
ON CONFLICT DO NOTHING

-- forget: what is older than so many seconds
WITH old AS (SELECT clock_timestamp() - make_interval(secs => %(seconds)s) AS at),
slots AS (DELETE FROM ironbeat.samples s USING old WHERE s.at < old.at),
queues AS (DELETE FROM ironbeat.queue_samples s USING old WHERE s.at < old.at)
DELETE FROM ironbeat.limit_samples s USING old WHERE s.at < old.at

-- queues: queues over time, the worst of each step; the longest ones only
WITH chosen AS (
    SELECT queue FROM ironbeat.queue_samples
    WHERE at >= %(since)s AND (%(queue)s::text IS NULL OR queue = %(queue)s)
    GROUP BY queue ORDER BY max(length) DESC, queue LIMIT %(most)s
)
SELECT extract(epoch FROM date_bin(make_interval(secs => %(step)s), at, '2000-01-01 00:00Z'))::bigint
           AS step,
       queue, max(length), max(oldest)
FROM ironbeat.queue_samples
WHERE at >= %(since)s AND queue IN (SELECT queue FROM chosen)
GROUP BY 1, 2 ORDER BY 1, 2

-- limits: the figures of the limits over time, averaged over each step
SELECT name,
       extract(epoch FROM date_bin(make_interval(secs => %(step)s), at, '2000-01-01 00:00Z'))::bigint
           AS step,
       avg(value)::float8, coalesce(bool_and(ok), true)
FROM ironbeat.limit_samples WHERE at >= %(since)s
GROUP BY 1, 2 ORDER BY 1, 2

-- broken_since: since when each limit has been broken without a pause, as far as is remembered
SELECT l.name, min(l.at)
FROM ironbeat.limit_samples l
JOIN (SELECT name, max(at) FILTER (WHERE ok IS NOT FALSE) AS well FROM ironbeat.limit_samples
      WHERE at >= clock_timestamp() - interval '1 day' GROUP BY name) AS was USING (name)
WHERE l.at >= clock_timestamp() - interval '1 day' AND l.ok IS FALSE
    AND (was.well IS NULL OR l.at > was.well)
GROUP BY l.name

-- waiting_since: since when each queue has not been empty, as far as is remembered
SELECT q.queue, min(q.at)
FROM ironbeat.queue_samples q
JOIN (SELECT queue, max(at) FILTER (WHERE length = 0) AS empty FROM ironbeat.queue_samples
      WHERE at >= clock_timestamp() - interval '1 day' GROUP BY queue) AS was USING (queue)
WHERE q.at >= clock_timestamp() - interval '1 day' AND q.length > 0
    AND (was.empty IS NULL OR q.at > was.empty)
GROUP BY q.queue
