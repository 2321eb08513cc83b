-- unplanned: schedules that are new, edited or resumed, and have no next fire yet
SELECT id, name, kind, expression, timezone, starts_at, ends_at, jitter_seconds, anchor_at,
    updated_at, clock_timestamp() AS now
FROM ironbeat.schedules WHERE enabled AND next_fire_at IS NULL ORDER BY id LIMIT %(limit)s

-- plan_first: the first fire of schedules; whoever was edited meanwhile is left for the next time
UPDATE ironbeat.schedules s
SET next_scheduled_for = coalesce(p.next_scheduled_for, 'infinity'),
    next_fire_at = coalesce(p.next_fire_at, 'infinity')
FROM json_to_recordset(%(plans)s::json) AS p (
    id bigint, updated_at timestamptz, next_scheduled_for timestamptz, next_fire_at timestamptz)
WHERE s.id = p.id AND s.updated_at = p.updated_at AND s.next_fire_at IS NULL

-- due: schedules whose time has come; a beat leaves those of the others alone while they are fresh.
-- The statement's time, not the clock's: an index serves a comparison only with what stands still.
SELECT id, name, workload, task, kind, expression, timezone, args, kwargs, headers, queue, priority,
    ends_at, jitter_seconds, expires_seconds, catch_up, catch_up_max, catch_up_window_seconds, overlap,
    anchor_at, updated_at, next_scheduled_for, next_fire_at, clock_timestamp() AS now
FROM ironbeat.schedules
WHERE enabled AND next_fire_at <= statement_timestamp()
    AND (id %% %(beats)s = %(place)s
         OR next_fire_at <= statement_timestamp() - make_interval(secs => %(patience)s))
ORDER BY next_fire_at LIMIT %(limit)s

-- fire: each due slot makes one run, and the schedules move on; all in this one statement, so that a
-- beat which is stopped or cut off never holds a lock. Whose next fire is no longer the one that was
-- read (another beat fired it, an operator edited it) is left out.
WITH plans AS (
    SELECT * FROM json_to_recordset(%(plans)s::json) AS p (
        id bigint, expected timestamptz, next_scheduled_for timestamptz, next_fire_at timestamptz,
        last_scheduled_for timestamptz, overlap text)
), mine AS MATERIALIZED (
    SELECT s.id, p.overlap FROM ironbeat.schedules s JOIN plans p ON s.id = p.id
    WHERE s.enabled AND s.next_fire_at = p.expected
    FOR UPDATE OF s SKIP LOCKED
), input AS (
    SELECT i.* FROM json_to_recordset(%(runs)s::json) AS i (
        id text, schedule_id bigint, schedule_name text, scheduled_for timestamptz, state text,
        reason text, created_at timestamptz, task text, workload text, queue text,
        priority smallint, expires_at timestamptz, argsrepr text, kwargsrepr text, message text)
    JOIN mine m ON m.id = i.schedule_id
), advanced AS (
    UPDATE ironbeat.schedules s
    SET next_scheduled_for = coalesce(p.next_scheduled_for, 'infinity'),
        next_fire_at = coalesce(p.next_fire_at, 'infinity'),
        last_scheduled_for = coalesce(p.last_scheduled_for, s.last_scheduled_for),
        last_fired_at = CASE WHEN p.last_scheduled_for IS NULL THEN s.last_fired_at
                             ELSE clock_timestamp() END
    FROM plans p JOIN mine m ON m.id = p.id
    WHERE s.id = p.id
), fired AS (
    INSERT INTO ironbeat.fires (schedule_id, scheduled_for, run_id)
    SELECT schedule_id, scheduled_for, id FROM input
    ON CONFLICT DO NOTHING
    RETURNING schedule_id, scheduled_for
), busy AS (
    SELECT r.schedule_id, count(*) AS live,
        count(*) FILTER (WHERE r.publish_at = 'infinity') AS held
    FROM ironbeat.runs r JOIN mine m ON m.id = r.schedule_id AND m.overlap <> 'allow'
    GROUP BY r.schedule_id
), ordered AS (
    SELECT i.*, m.overlap, coalesce(b.live, 0) AS live, coalesce(b.held, 0) AS held,
        row_number() OVER (PARTITION BY i.schedule_id, i.state ORDER BY i.scheduled_for) AS place,
        count(*) OVER (PARTITION BY i.schedule_id, i.state) AS places
    FROM input i JOIN fired f USING (schedule_id, scheduled_for)
    JOIN mine m ON m.id = i.schedule_id LEFT JOIN busy b ON b.schedule_id = i.schedule_id
), decided AS (
    SELECT o.*, CASE
        WHEN o.state = 'skipped' THEN 'skip'
        WHEN o.overlap = 'allow' THEN 'go'
        WHEN o.overlap = 'cancel_other' THEN CASE WHEN o.place = o.places THEN 'go' ELSE 'skip' END
        WHEN o.live = 0 AND o.place = 1 THEN 'go'
        WHEN o.overlap = 'queue_one' AND o.held = 0
            AND o.place = CASE WHEN o.live = 0 THEN 2 ELSE 1 END THEN 'hold'
        ELSE 'skip' END AS decision
    FROM ordered o
), skipped AS (
    INSERT INTO ironbeat.run_history (
        id, created_at, task, workload, queue, priority, state, durable, schedule_id, schedule_name,
        scheduled_for, ended_at, attempt, retries, replacements, crashes, argsrepr, kwargsrepr,
        reason)
    SELECT id, created_at, task, workload, queue, priority, 'skipped', true, schedule_id,
        schedule_name, scheduled_for, clock_timestamp(), 0, 0, 0, 0, argsrepr, kwargsrepr,
        coalesce(reason, CASE overlap
            WHEN 'cancel_other' THEN 'overlap: a later fire came due with it'
            ELSE 'overlap: an earlier run of the schedule has not ended' END)
    FROM decided WHERE decision = 'skip'
), cancelled AS (
    UPDATE ironbeat.runs r SET cancel_requested_at = clock_timestamp()
    FROM decided d
    WHERE d.overlap = 'cancel_other' AND d.decision = 'go' AND r.schedule_id = d.schedule_id
        AND r.cancel_requested_at IS NULL
    RETURNING r.id, r.state
), created AS (
    INSERT INTO ironbeat.runs (
        id, created_at, task, workload, queue, priority, state, durable, schedule_id, schedule_name,
        scheduled_for, root_id, expires_at, publish_at, argsrepr, kwargsrepr, message)
    SELECT id, created_at, task, workload, queue, priority, 'pending', true, schedule_id,
        schedule_name, scheduled_for, id, expires_at,
        CASE decision WHEN 'hold' THEN 'infinity'
             ELSE clock_timestamp() + make_interval(secs => %(grace)s) END,
        argsrepr, kwargsrepr, message::json
    FROM decided WHERE decision IN ('go', 'hold')
    ON CONFLICT (id) DO NOTHING
    RETURNING id, publish_at = 'infinity' AS held
)
SELECT id, CASE WHEN held THEN 'held' ELSE 'go' END AS what FROM created
UNION ALL SELECT id, CASE state WHEN 'running' THEN 'stop' ELSE 'cancel' END FROM cancelled

-- next: when the next fire is due, in seconds from now
SELECT extract(epoch FROM min(next_fire_at) - clock_timestamp())::double precision
FROM ironbeat.schedules WHERE enabled AND next_fire_at < 'infinity'

-- beats: who else plans; a beat's place among them is a courtesy, never a lock
SELECT id FROM ironbeat.leases WHERE kind = 'beat' AND expires_at > clock_timestamp() ORDER BY id

-- around: who could execute something, and how long the oldest due schedule has waited
SELECT (SELECT count(*) FROM ironbeat.leases
        WHERE kind = 'worker' AND expires_at > clock_timestamp()) AS workers,
    (SELECT greatest(0, extract(epoch FROM clock_timestamp() - min(next_fire_at)))::float8
     FROM ironbeat.schedules WHERE enabled AND next_fire_at < statement_timestamp()) AS overdue

-- by_name: a schedule to fire by hand
SELECT id, name, workload, task, kind, expression, timezone, args, kwargs, headers, queue, priority,
    ends_at, jitter_seconds, expires_seconds, catch_up, catch_up_max, catch_up_window_seconds, overlap,
    anchor_at, updated_at, next_scheduled_for, next_fire_at, clock_timestamp() AS now
FROM ironbeat.schedules WHERE name = %(name)s

-- fire_by_hand: slots that have no run yet get one, whatever the schedule's own state
WITH input AS (
    SELECT i.* FROM json_to_recordset(%(runs)s::json) AS i (
        id text, schedule_id bigint, schedule_name text, scheduled_for timestamptz,
        created_at timestamptz, task text, workload text, queue text, priority smallint,
        expires_at timestamptz, argsrepr text, kwargsrepr text, message text)
), fired AS (
    INSERT INTO ironbeat.fires (schedule_id, scheduled_for, run_id)
    SELECT schedule_id, scheduled_for, id FROM input ON CONFLICT DO NOTHING
    RETURNING schedule_id, scheduled_for
)
INSERT INTO ironbeat.runs (
    id, created_at, task, workload, queue, priority, state, durable, schedule_id, schedule_name,
    scheduled_for, root_id, expires_at, publish_at, argsrepr, kwargsrepr, message)
SELECT id, created_at, task, workload, queue, priority, 'pending', true, schedule_id, schedule_name,
    scheduled_for, id, expires_at, clock_timestamp() + make_interval(secs => %(grace)s), argsrepr,
    kwargsrepr, message::json
FROM input JOIN fired USING (schedule_id, scheduled_for)
RETURNING id
