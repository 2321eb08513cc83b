-- read: the share that goes to Celery, and whether anybody set one
SELECT (value ->> 'ratio')::float8 FROM ironbeat.flags WHERE name = %(name)s

-- write: from this commit on
INSERT INTO ironbeat.flags (name, value) VALUES (%(name)s, jsonb_build_object('ratio', %(ratio)s::float8))
ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = clock_timestamp()

-- forget: back to what the setting says
DELETE FROM ironbeat.flags WHERE name = %(name)s
