-- take: the key is this run's, unless another run holds it inside its window
INSERT INTO ironbeat.idempotency_keys AS k (key, run_id, expires_at)
VALUES (%(key)s, %(run_id)s, clock_timestamp() + make_interval(secs => %(window)s))
ON CONFLICT (key) DO UPDATE SET run_id = excluded.run_id, expires_at = excluded.expires_at,
    created_at = clock_timestamp()
WHERE k.expires_at <= clock_timestamp()
RETURNING run_id

-- holder: the run that holds a key
SELECT run_id FROM ironbeat.idempotency_keys WHERE key = %(key)s

-- take_many: as `take`, for many runs; in the order of keys, so that nobody waits in a circle
INSERT INTO ironbeat.idempotency_keys AS k (key, run_id, expires_at)
SELECT i.key, i.run_id, clock_timestamp() + make_interval(secs => %(window)s)
FROM json_to_recordset(%(keys)s::json) AS i (key text, run_id text)
ORDER BY i.key
ON CONFLICT (key) DO UPDATE SET run_id = excluded.run_id, expires_at = excluded.expires_at,
    created_at = clock_timestamp()
WHERE k.expires_at <= clock_timestamp()
RETURNING key

-- take_over_many: the keys of runs that ended without success become these runs'
UPDATE ironbeat.idempotency_keys k SET run_id = i.run_id, created_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => %(window)s)
FROM json_to_recordset(%(keys)s::json) AS i (key text, run_id text)
WHERE k.key = i.key
    AND NOT EXISTS (SELECT FROM ironbeat.runs r WHERE r.id = k.run_id)
    AND EXISTS (SELECT FROM ironbeat.run_history h WHERE h.id = k.run_id
                AND h.state IN ('failed', 'cancelled', 'expired', 'dead', 'skipped'))
RETURNING k.key

-- holders: the runs that hold keys
SELECT key, run_id FROM ironbeat.idempotency_keys WHERE key = ANY(%(keys)s)
