-- draw: due runs of these queues, by priority and age, taken for some seconds
WITH candidates AS (
    SELECT found.id, found.rank, found.due
    FROM unnest(%(queues)s::text[]) AS q (name)
    CROSS JOIN generate_series(0, 9) AS p (rank)
    CROSS JOIN LATERAL (
        SELECT r.id, p.rank, coalesce(r.publish_at, r.created_at) AS due FROM ironbeat.runs r
        WHERE r.queue = q.name AND least(greatest(coalesce(r.priority, 0), 0), 9) = p.rank
            AND coalesce(r.publish_at, r.created_at) <= statement_timestamp()
            AND r.message IS NOT NULL AND r.state IN ('pending', 'published', 'retrying')
            AND (r.eta IS NULL OR r.eta <= statement_timestamp())
            AND r.cancel_requested_at IS NULL
        ORDER BY coalesce(r.publish_at, r.created_at) LIMIT 8 * %(limit)s) AS found
    ORDER BY found.rank, found.due LIMIT 8 * %(limit)s
), taken AS (
    SELECT r.id, c.rank, c.due FROM candidates c JOIN ironbeat.runs r ON r.id = c.id
    WHERE r.state IN ('pending', 'published', 'retrying')
        AND coalesce(r.publish_at, r.created_at) <= statement_timestamp()
    ORDER BY c.rank, c.due LIMIT %(limit)s FOR UPDATE OF r SKIP LOCKED
), marked AS (
    UPDATE ironbeat.runs r SET publish_at = clock_timestamp() + make_interval(secs => %(hold)s)
    FROM taken t WHERE r.id = t.id
    RETURNING r.id, r.queue, r.priority, r.message, t.rank, t.due
)
SELECT m.id, m.queue, m.priority, m.message FROM marked m ORDER BY m.rank, m.due

-- keep: what was drawn and has not begun is still in good hands
UPDATE ironbeat.runs SET publish_at = clock_timestamp() + make_interval(secs => %(hold)s)
WHERE id = ANY(%(ids)s) AND publish_at IS NOT NULL AND state IN ('pending', 'published', 'retrying')

-- return: what was drawn is due again; a claim of ours on it ends, and its attempt does not count
UPDATE ironbeat.runs SET publish_at = clock_timestamp(),
    state = CASE state WHEN 'published' THEN 'pending' WHEN 'running' THEN 'pending' ELSE state END,
    attempt = attempt - (state = 'running')::integer,
    lease_id = CASE state WHEN 'running' THEN NULL ELSE lease_id END,
    worker = CASE state WHEN 'running' THEN NULL ELSE worker END
WHERE id = ANY(%(ids)s) AND (state IN ('pending', 'published', 'retrying')
    OR state = 'running' AND lease_id = %(lease)s)

-- return_crashed: the child process that ran it died; its worker lives on
UPDATE ironbeat.runs SET publish_at = clock_timestamp(), state = 'pending', lease_id = NULL,
    progress = NULL, crashes = crashes + 1
WHERE id = ANY(%(ids)s) AND state = 'running' AND lease_id = %(lease)s
