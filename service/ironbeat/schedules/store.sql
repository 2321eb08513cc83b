-- select_schedules: schedules by filters, each of which may be NULL
SELECT id, name, workload, task, kind, expression, timezone, args, kwargs, headers, queue, priority,
    starts_at, ends_at, jitter_seconds, expires_seconds, catch_up, catch_up_max,
    catch_up_window_seconds, overlap, enabled, declared, edited_at, created_at, updated_at,
    anchor_at, nullif(next_scheduled_for, 'infinity') AS next_scheduled_for,
    nullif(next_fire_at, 'infinity') AS next_fire_at,
    coalesce(next_fire_at = 'infinity', false) AS finished, last_scheduled_for, last_fired_at
FROM ironbeat.schedules
WHERE (%(name)s::text IS NULL OR name = %(name)s)
    AND (%(matching)s::text IS NULL OR strpos(lower(name), lower(%(matching)s)) > 0)
    AND (%(workload)s::text IS NULL OR workload = %(workload)s)
    AND (%(task)s::text IS NULL OR task = %(task)s)
    AND (%(kind)s::text IS NULL OR kind = %(kind)s)
    AND (%(queue)s::text IS NULL OR queue = %(queue)s)
    AND (%(enabled)s::boolean IS NULL OR enabled = %(enabled)s)
ORDER BY CASE WHEN %(by_next_fire)s THEN next_fire_at END, name
LIMIT %(limit)s OFFSET %(offset)s

-- lock: one schedule, to be edited
SELECT name FROM ironbeat.schedules WHERE name = %(name)s FOR UPDATE

-- insert: a schedule; an interval counts from its start, or from now
INSERT INTO ironbeat.schedules (
    name, workload, task, kind, expression, timezone, args, kwargs, headers, queue, priority,
    starts_at, ends_at, jitter_seconds, expires_seconds, catch_up, catch_up_max,
    catch_up_window_seconds, overlap, enabled, declared, edited_at, anchor_at)
VALUES (%(name)s, %(workload)s, %(task)s, %(kind)s, %(expression)s, %(timezone)s, %(args)s,
    %(kwargs)s, %(headers)s, %(queue)s, %(priority)s, %(starts_at)s, %(ends_at)s,
    %(jitter_seconds)s, %(expires_seconds)s, %(catch_up)s, %(catch_up_max)s,
    %(catch_up_window_seconds)s, %(overlap)s, %(enabled)s, %(declared)s,
    CASE WHEN %(declared)s::jsonb IS NULL THEN clock_timestamp() END,
    coalesce(%(starts_at)s, date_trunc('second', clock_timestamp())))
ON CONFLICT (name) DO NOTHING
RETURNING id

-- update: what a definition says; an interval with another start counts from it. Columns that stay
-- as they are change nothing, so the trigger plans anew only where the times differ.
UPDATE ironbeat.schedules
SET workload = %(workload)s, task = %(task)s, kind = %(kind)s, expression = %(expression)s,
    timezone = %(timezone)s, args = %(args)s, kwargs = %(kwargs)s, headers = %(headers)s,
    queue = %(queue)s, priority = %(priority)s, starts_at = %(starts_at)s, ends_at = %(ends_at)s,
    jitter_seconds = %(jitter_seconds)s, expires_seconds = %(expires_seconds)s,
    catch_up = %(catch_up)s, catch_up_max = %(catch_up_max)s,
    catch_up_window_seconds = %(catch_up_window_seconds)s, overlap = %(overlap)s,
    enabled = %(enabled)s, declared = %(declared)s,
    edited_at = CASE WHEN %(edited)s THEN clock_timestamp() END,
    anchor_at = CASE WHEN %(starts_at)s::timestamptz IS DISTINCT FROM starts_at
                     THEN coalesce(%(starts_at)s, anchor_at) ELSE anchor_at END
WHERE name = %(name)s

-- enable: switch a schedule on or off by hand
UPDATE ironbeat.schedules SET enabled = %(enabled)s, edited_at = clock_timestamp()
WHERE name = %(name)s

-- delete: forget a schedule; its runs stay
DELETE FROM ironbeat.schedules WHERE name = %(name)s AND declared IS NULL RETURNING id

-- remember: what code declares of a schedule that is an operator's, unless the two agree
UPDATE ironbeat.schedules
SET declared = %(declared)s, edited_at = CASE WHEN NOT %(agrees)s THEN edited_at END
WHERE name = %(name)s

-- retire: code no longer declares these; those that no operator made their own are switched off
UPDATE ironbeat.schedules
SET declared = NULL, enabled = enabled AND edited_at IS NOT NULL
WHERE name = ANY(%(names)s)

-- declared_elsewhere: schedules that code declared, and that are not among these names
SELECT name FROM ironbeat.schedules
WHERE declared IS NOT NULL AND name <> ALL(%(names)s)
    AND (%(workloads)s::text[] IS NULL OR workload = ANY(%(workloads)s))
ORDER BY name
