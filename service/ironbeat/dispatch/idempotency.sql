-- take: the key is this run's, unless another run holds it inside its window
INSERT INTO ironbeat.idempotency_keys AS k (key, run_id, expires_at)
VALUES (%(key)s, %(run_id)s, clock_timestamp() + make_interval(secs => %(window)s))
ON CONFLICT (key) DO UPDATE SET run_id = excluded.run_id, expires_at = excluded.expires_at,
    created_at = clock_timestamp()
WHERE k.expires_at <= clock_timestamp()
RETURNING run_id

-- take_over: the key of a run that ended without success becomes this run's
UPDATE ironbeat.idempotency_keys k SET run_id = %(run_id)s, created_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => %(window)s)
WHERE k.key = %(key)s
    AND NOT EXISTS (SELECT FROM ironbeat.runs r WHERE r.id = k.run_id)
    AND EXISTS (SELECT FROM ironbeat.run_history h WHERE h.id = k.run_id
                AND h.state IN ('failed', 'cancelled', 'expired', 'dead', 'skipped'))
RETURNING run_id

-- holder: the run that holds a key
SELECT run_id FROM ironbeat.idempotency_keys WHERE key = %(key)s
