-- take_slot: whoever is first in a slot looks for everybody
INSERT INTO ironbeat.samples (at)
VALUES (date_bin(make_interval(secs => %(every)s), statement_timestamp(), '2000-01-01 00:00Z'))
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
WITH old AS (SELECT statement_timestamp() - make_interval(secs => %(seconds)s) AS at),
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

-- broken_since: since when the limits that the last look found broken have been so without a pause
SELECT l.name, (
    SELECT b.at FROM ironbeat.limit_samples b
    WHERE b.name = l.name AND b.ok IS FALSE AND b.at > coalesce(
        (SELECT w.at FROM ironbeat.limit_samples w
         WHERE w.name = l.name AND w.ok IS NOT FALSE
             AND w.at >= statement_timestamp() - interval '1 day'
         ORDER BY w.at DESC LIMIT 1), statement_timestamp() - interval '1 day')
    ORDER BY b.at LIMIT 1)
FROM ironbeat.limit_samples l
WHERE l.at = (SELECT max(at) FROM ironbeat.limit_samples) AND l.ok IS FALSE

-- waiting_since: since when the queues that the last look found waiting have not been empty
SELECT q.queue, (
    SELECT b.at FROM ironbeat.queue_samples b
    WHERE b.queue = q.queue AND b.length > 0 AND b.at > coalesce(
        (SELECT w.at FROM ironbeat.queue_samples w
         WHERE w.queue = q.queue AND w.length = 0
             AND w.at >= statement_timestamp() - interval '1 day'
         ORDER BY w.at DESC LIMIT 1), statement_timestamp() - interval '1 day')
    ORDER BY b.at LIMIT 1)
FROM ironbeat.queue_samples q
WHERE q.at = (SELECT max(at) FROM ironbeat.queue_samples) AND q.length > 0
