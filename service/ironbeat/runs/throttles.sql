-- enter: may this run begin; see the function in the migrations
SELECT ironbeat.throttle_enter(%(name)s, %(run)s, %(lease)s, %(pace)s, %(burst)s, %(most)s)

-- postpone: it may not yet: it goes back to the ledger, and the attempt does not count
UPDATE ironbeat.runs SET state = 'pending', attempt = attempt - 1, lease_id = NULL, worker = NULL,
    started_at = NULL, progress = NULL, message = coalesce(message, %(message)s::json),
    publish_at = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE id = %(run)s AND attempt = %(attempt)s AND state = 'running'

-- leave: a run has ended; who comes in its place
SELECT ironbeat.throttle_leave(%(name)s, %(run)s)

-- sweep: free what the dead hold, and call those who wait for it
SELECT ironbeat.throttle_sweep(%(some)s)

-- take: the messages of these runs, which are published now; if that fails, they are due again
UPDATE ironbeat.runs r SET publish_at = clock_timestamp() + make_interval(secs => %(hold)s)
WHERE id = ANY(%(ids)s) AND publish_at <= clock_timestamp() AND message IS NOT NULL
RETURNING r.id, r.message

-- forget: reservations of runs that ended without using them, and throttles nobody has used for a day
WITH unused AS (
    DELETE FROM ironbeat.throttle_places p
    WHERE p.lease_id IS NULL AND (p.due_at IS NULL OR p.due_at < clock_timestamp() - interval '1 hour')
        AND NOT EXISTS (SELECT FROM ironbeat.runs r WHERE r.id = p.run_id)
)
DELETE FROM ironbeat.throttles t
WHERE t.next_at < clock_timestamp() - interval '1 day'
    AND NOT EXISTS (SELECT FROM ironbeat.throttle_places p WHERE p.name = t.name)

-- standing: the throttles that are in use: who executes, who waits
SELECT t.name, t.concurrency, greatest(0, extract(epoch FROM t.next_at - clock_timestamp()))::float8,
    count(*) FILTER (WHERE p.lease_id IS NOT NULL),
    count(*) FILTER (WHERE p.parked),
    count(*) FILTER (WHERE p.lease_id IS NULL AND NOT p.parked)
FROM ironbeat.throttles t JOIN ironbeat.throttle_places p ON p.name = t.name
GROUP BY t.name ORDER BY count(*) DESC, t.name LIMIT %(limit)s
