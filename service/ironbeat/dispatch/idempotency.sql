-- take: the key is this run's, unless another run holds it inside its window
INSERT INTO ironbeat.idempotency_keys AS k (key, run_id, expires_at)
VALUES (%(key)s, %(run_id)s, clock_timestamp() + make_interval(secs => %(window)s))
ON CONFLICT (key) DO UPDATE SET run_id = excluded.run_id, expires_at = excluded.expires_at,
    created_at = clock_timestamp()
WHERE k.expires_at <= clock_timestamp()
RETURNING run_id

-- holder: the run that holds a key
SELECT run_id FROM ironbeat.idempotency_keys WHERE key = %(key)s
