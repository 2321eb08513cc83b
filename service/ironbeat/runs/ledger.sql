-- create: runs that are committed before they are published; an id that exists is left alone
INSERT INTO ironbeat.runs (
    id, created_at, task, workload, queue, priority, state, durable, schedule_id, schedule_name,
    scheduled_for, idempotency_key, parent_id, root_id, group_id, eta, expires_at, publish_at,
    retries, replacements, argsrepr, kwargsrepr, message)
SELECT i.id, i.created_at, i.task, i.workload, i.queue, i.priority, 'pending', i.durable,
    i.schedule_id, i.schedule_name, i.scheduled_for, i.idempotency_key, i.parent_id, i.root_id,
    i.group_id, i.eta, i.expires_at,
    CASE WHEN i.publish_after IS NULL THEN 'infinity'
         ELSE clock_timestamp() + make_interval(secs => i.publish_after) END,
    i.retries, i.replacements, i.argsrepr, i.kwargsrepr, i.message::json
FROM json_to_recordset(%(runs)s::json) AS i (
    id text, created_at timestamptz, task text, workload text, queue text, priority smallint,
    durable boolean, schedule_id bigint, schedule_name text, scheduled_for timestamptz,
    idempotency_key text, parent_id text, root_id text, group_id text, eta timestamptz,
    expires_at timestamptz, publish_after double precision, retries integer, replacements integer,
    argsrepr text, kwargsrepr text, message text)
ORDER BY i.id
ON CONFLICT (id) DO NOTHING
RETURNING id

-- record: runs that the broker took already; a worker may have been faster
INSERT INTO ironbeat.runs (
    id, created_at, task, workload, queue, priority, state, durable, parent_id, root_id, group_id,
    eta, expires_at, published_at, argsrepr, kwargsrepr, message)
SELECT i.id, i.created_at, i.task, i.workload, i.queue, i.priority, 'published', false,
    i.parent_id, i.root_id, i.group_id, i.eta, i.expires_at, i.created_at, i.argsrepr, i.kwargsrepr,
    i.message::json
FROM json_to_recordset(%(runs)s::json) AS i (
    id text, created_at timestamptz, task text, workload text, queue text, priority smallint,
    parent_id text, root_id text, group_id text, eta timestamptz, expires_at timestamptz,
    argsrepr text, kwargsrepr text, message text)
ORDER BY i.id
ON CONFLICT (id) DO NOTHING

-- forget_ended: live rows written after their run had ended already
DELETE FROM ironbeat.runs r USING ironbeat.run_history h
WHERE r.id = ANY(%(ids)s) AND h.id = r.id
    AND h.created_at BETWEEN %(oldest)s AND %(newest)s
    AND r.state IN ('published', 'running') AND (r.lease_id IS NULL OR r.lease_id = %(lease)s)

-- unhurried: this transaction's commit need not have reached the disk when it returns
SET LOCAL synchronous_commit = off

-- mark_published: the broker has these; what was claimed meanwhile is left alone
UPDATE ironbeat.runs
SET state = CASE state WHEN 'pending' THEN 'published' ELSE state END,
    publish_at = NULL, published_at = clock_timestamp()
WHERE id = ANY(%(ids)s) AND publish_at IS NOT NULL AND state IN ('pending', 'retrying')

-- claim: one execution a run; a second one only over a lapsed lease, or for a later retry
INSERT INTO ironbeat.runs AS r (
    id, created_at, task, workload, queue, priority, state, durable, parent_id, root_id, group_id,
    eta, expires_at, started_at, attempt, retries, replacements, lease_id, worker, argsrepr,
    kwargsrepr)
SELECT i.id, coalesce(i.created_at, clock_timestamp()), i.task, i.workload, i.queue, i.priority,
    'running', i.durable, i.parent_id, i.root_id, i.group_id, i.eta, i.expires_at,
    clock_timestamp(), 1, i.retries, i.replacements, %(lease)s, %(worker)s, i.argsrepr, i.kwargsrepr
FROM json_to_recordset(%(claims)s::json) AS i (
    id text, created_at timestamptz, task text, workload text, queue text, priority smallint,
    durable boolean, retries integer, replacements integer, eta timestamptz,
    expires_at timestamptz, parent_id text, root_id text, group_id text, argsrepr text,
    kwargsrepr text)
ORDER BY i.id
ON CONFLICT (id) DO UPDATE SET
    state = 'running', started_at = excluded.started_at, attempt = r.attempt + 1,
    retries = excluded.retries, replacements = excluded.replacements, task = excluded.task,
    crashes = r.crashes + (r.state = 'running' AND excluded.retries = r.retries
                           AND excluded.replacements = r.replacements)::integer,
    lease_id = excluded.lease_id, worker = excluded.worker, publish_at = NULL,
    published_at = coalesce(r.published_at, r.created_at),
    argsrepr = excluded.argsrepr, kwargsrepr = excluded.kwargsrepr
WHERE r.cancel_requested_at IS NULL AND (
    r.state IN ('pending', 'published', 'retrying')
        AND (excluded.retries, excluded.replacements) >= (r.retries, r.replacements)
    OR r.state = 'running' AND (
        (excluded.retries, excluded.replacements) > (r.retries, r.replacements)
        OR r.lease_id <> %(lease)s
            AND (excluded.retries, excluded.replacements) = (r.retries, r.replacements)
            AND NOT EXISTS (SELECT FROM ironbeat.leases l
                            WHERE l.id = r.lease_id AND l.expires_at > clock_timestamp())
            AND EXISTS (SELECT FROM ironbeat.leases me
                        WHERE me.id = %(lease)s AND me.expires_at > clock_timestamp()
                          AND me.steady_since <= clock_timestamp()
                              - make_interval(secs => %(lease_seconds)s))))
RETURNING r.id, r.attempt, r.crashes

-- ended: which of these runs have ended, and how
SELECT h.id, h.state, h.result, h.error FROM ironbeat.run_history h
WHERE h.id = ANY(%(ids)s) AND h.created_at BETWEEN %(oldest)s AND %(newest)s

-- live: how these live runs stand
SELECT r.id, r.state, r.retries, r.replacements, r.attempt, r.lease_id, r.crashes,
    r.cancel_requested_at IS NOT NULL AS cancelled
FROM ironbeat.runs r WHERE r.id = ANY(%(ids)s)

-- keep_message: a refused copy was the broker's last; keep it in case the live execution dies
UPDATE ironbeat.runs SET message = %(message)s::json WHERE id = %(id)s AND message IS NULL

-- keep_message_of_ended: the same for a run that ended without its message, to be replayed
UPDATE ironbeat.run_history SET message = %(message)s::json
WHERE id = %(id)s AND message IS NULL AND state <> 'succeeded'

-- release: claims that were not used go back; the attempt does not count
UPDATE ironbeat.runs SET state = 'published', attempt = attempt - 1, lease_id = NULL, worker = NULL,
    started_at = NULL
WHERE id = ANY(%(ids)s) AND state = 'running' AND lease_id = %(lease)s

-- release_crashed: the child process that held this claim died; its worker lives on
UPDATE ironbeat.runs SET state = 'published', lease_id = NULL, worker = NULL, progress = NULL,
    crashes = crashes + 1
WHERE id = %(id)s AND state = 'running' AND lease_id = %(lease)s

-- finish: the outcome of the attempt that holds the run, moved to the history; older ones are refused
WITH input AS (
    SELECT * FROM json_to_recordset(%(outcomes)s::json) AS i (
        id text, attempt integer, state text, runtime double precision, age double precision,
        result text, error text, traceback text, reason text, message text)
), ended AS (
    DELETE FROM ironbeat.runs r USING input i
    WHERE r.id = i.id AND r.attempt = i.attempt AND r.state = 'running'
    RETURNING r.*, i.state AS new_state, i.result AS new_result, i.error AS new_error,
        i.traceback AS new_traceback, i.reason AS new_reason, i.message AS new_message,
        clock_timestamp() - make_interval(secs => i.age) AS new_ended_at,
        make_interval(secs => i.runtime) AS new_runtime
)
INSERT INTO ironbeat.run_history (
    id, created_at, task, workload, queue, priority, state, durable, schedule_id, schedule_name,
    scheduled_for, idempotency_key, parent_id, root_id, group_id, eta, expires_at, published_at,
    started_at, ended_at, attempt, retries, replacements, crashes, lease_id, worker, argsrepr,
    kwargsrepr, message, progress, result, error, traceback, reason, attempts, cancel_requested_at)
SELECT id, created_at, task, workload, queue, priority, new_state, durable, schedule_id,
    schedule_name, scheduled_for, idempotency_key, parent_id, root_id, group_id, eta, expires_at,
    published_at, greatest(new_ended_at - new_runtime, created_at),
    greatest(new_ended_at, created_at), attempt, retries,
    replacements, crashes, lease_id, worker, argsrepr, kwargsrepr,
    CASE WHEN new_state <> 'succeeded' THEN coalesce(message, new_message::json) END, progress,
    new_result::json, new_error, new_traceback, new_reason, attempts, cancel_requested_at
FROM ended
ON CONFLICT (id, created_at) DO NOTHING
RETURNING id

-- reclaim: claims that PostgreSQL lost when it crashed, unless somebody else has claimed since
INSERT INTO ironbeat.runs AS r (
    id, created_at, task, workload, queue, priority, state, durable, parent_id, root_id, group_id,
    eta, expires_at, started_at, attempt, retries, replacements, lease_id, worker, argsrepr,
    kwargsrepr)
SELECT i.id, coalesce(i.created_at, clock_timestamp()), i.task, i.workload, i.queue, i.priority,
    'running', i.durable, i.parent_id, i.root_id, i.group_id, i.eta, i.expires_at,
    clock_timestamp(), i.attempt, i.retries, i.replacements, %(lease)s, %(worker)s, i.argsrepr,
    i.kwargsrepr
FROM json_to_recordset(%(claims)s::json) AS i (
    id text, created_at timestamptz, task text, workload text, queue text, priority smallint,
    durable boolean, retries integer, replacements integer, eta timestamptz,
    expires_at timestamptz, parent_id text, root_id text, group_id text, argsrepr text,
    kwargsrepr text, attempt integer)
WHERE NOT EXISTS (SELECT FROM ironbeat.run_history h WHERE h.id = i.id)
ORDER BY i.id
ON CONFLICT (id) DO UPDATE SET
    state = 'running', started_at = excluded.started_at, attempt = excluded.attempt,
    retries = excluded.retries, replacements = excluded.replacements,
    lease_id = excluded.lease_id, worker = excluded.worker, publish_at = NULL,
    published_at = coalesce(r.published_at, r.created_at)
WHERE r.state IN ('pending', 'published', 'retrying') AND r.attempt < excluded.attempt
    AND (excluded.retries, excluded.replacements) >= (r.retries, r.replacements)
RETURNING r.id

-- attempts_of_ended: which attempt ended these runs
SELECT id, attempt FROM ironbeat.run_history WHERE id = ANY(%(ids)s)

-- reschedule: an attempt ended in a retry or a replacement, whose message follows
UPDATE ironbeat.runs r
SET state = 'retrying', retries = i.retries, replacements = i.replacements, eta = i.eta,
    message = coalesce(i.message::json, r.message), lease_id = NULL, progress = NULL,
    -- A retry that was spooled names no time to publish it.
    publish_at = CASE WHEN i.publish_after IS NOT NULL
                      THEN clock_timestamp() + make_interval(secs => i.publish_after)
                      WHEN i.message IS NOT NULL
                      THEN greatest(clock_timestamp(), i.eta - interval '15 seconds') END,
    attempts = (coalesce(r.attempts::jsonb, '[]') || jsonb_build_object(
        'attempt', r.attempt, 'worker', r.worker, 'started_at', r.started_at,
        'ended_at', clock_timestamp(), 'error', i.error))::json,
    error = i.error, traceback = i.traceback
FROM json_to_recordset(%(outcomes)s::json) AS i (
    id text, attempt integer, retries integer, replacements integer, eta timestamptz, error text,
    traceback text, publish_after double precision, message text)
WHERE r.id = i.id AND r.attempt = i.attempt AND r.state = 'running'
RETURNING r.id

-- end: live runs that are not being executed end without an attempt's outcome
WITH ended AS (
    DELETE FROM ironbeat.runs r WHERE r.id = ANY(%(ids)s)
        AND (r.state <> 'running' OR %(running)s)
    RETURNING r.*
)
INSERT INTO ironbeat.run_history (
    id, created_at, task, workload, queue, priority, state, durable, schedule_id, schedule_name,
    scheduled_for, idempotency_key, parent_id, root_id, group_id, eta, expires_at, published_at,
    started_at, ended_at, attempt, retries, replacements, crashes, lease_id, worker, argsrepr,
    kwargsrepr, message, progress, result, error, traceback, reason, attempts, cancel_requested_at)
SELECT id, created_at, task, workload, queue, priority, %(state)s, durable, schedule_id,
    schedule_name, scheduled_for, idempotency_key, parent_id, root_id, group_id, eta, expires_at,
    published_at, started_at, clock_timestamp(), attempt, retries, replacements, crashes, lease_id,
    worker, argsrepr, kwargsrepr, message, progress, NULL, coalesce(%(error)s, error), traceback,
    %(reason)s, attempts, cancel_requested_at
FROM ended
ON CONFLICT (id, created_at) DO NOTHING
RETURNING id, queue

-- entomb: an end for a run the ledger has not seen yet, so that its message finds it
INSERT INTO ironbeat.run_history (
    id, created_at, task, queue, state, ended_at, attempt, retries, replacements, reason)
VALUES (%(id)s, coalesce(%(created_at)s, clock_timestamp()), %(task)s, %(queue)s, %(state)s,
    clock_timestamp(), 0, 0, 0, %(reason)s)
ON CONFLICT (id, created_at) DO NOTHING

-- progress: what a running attempt says of itself
UPDATE ironbeat.runs SET progress = i.progress::json
FROM json_to_recordset(%(reports)s::json) AS i (id text, attempt integer, progress text)
WHERE ironbeat.runs.id = i.id AND ironbeat.runs.attempt = i.attempt AND state = 'running'

-- request_cancel: a running attempt is asked to stop
UPDATE ironbeat.runs SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
WHERE id = ANY(%(ids)s) AND state = 'running'
RETURNING id, worker, lease_id

-- cancel_requests: what this worker is asked to stop
SELECT id FROM ironbeat.runs
WHERE lease_id = %(lease)s AND cancel_requested_at IS NOT NULL AND state = 'running'

-- release_held: runs held back until another run of their schedule ended
UPDATE ironbeat.runs r SET publish_at = clock_timestamp()
WHERE r.publish_at = 'infinity' AND r.schedule_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM ironbeat.runs o WHERE o.schedule_id = r.schedule_id AND o.id <> r.id
        AND o.publish_at IS DISTINCT FROM 'infinity')

-- overdue: runs that nobody started before their time was up
SELECT id FROM ironbeat.runs
WHERE expires_at < statement_timestamp() AND state IN ('pending', 'published', 'retrying')
LIMIT 1000

-- due_for_publishing: the outbox; taken for some seconds, so that a publisher's death loses nothing.
-- No more than so many bytes at once, but for a single message that is larger. (An index serves a
-- comparison with the statement's time, not with a clock that goes on.)
WITH due AS MATERIALIZED (
    SELECT id, publish_at FROM ironbeat.runs
    WHERE publish_at <= statement_timestamp() - make_interval(secs => %(late)s)
        AND message IS NOT NULL
    ORDER BY publish_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), sized AS (
    SELECT d.id, sum(b.bytes) OVER (ORDER BY d.publish_at, d.id) - b.bytes AS before
    FROM due d JOIN ironbeat.runs r ON r.id = d.id
    CROSS JOIN LATERAL (SELECT CASE WHEN pg_column_size(r.message) < 2000 THEN 2000
                                    ELSE octet_length(r.message::text) END AS bytes) AS b
)
UPDATE ironbeat.runs r SET publish_at = clock_timestamp() + make_interval(secs => %(hold)s)
FROM sized s WHERE r.id = s.id AND s.before < %(bytes)s
RETURNING r.id, r.queue, r.priority, r.message

-- due_of_queue: the same for one queue, where another is full
WITH due AS MATERIALIZED (
    SELECT id, publish_at FROM ironbeat.runs
    WHERE queue = %(queue)s AND message IS NOT NULL
        AND publish_at <= statement_timestamp() - make_interval(secs => %(late)s)
    ORDER BY publish_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), sized AS (
    SELECT d.id, sum(b.bytes) OVER (ORDER BY d.publish_at, d.id) - b.bytes AS before
    FROM due d JOIN ironbeat.runs r ON r.id = d.id
    CROSS JOIN LATERAL (SELECT CASE WHEN pg_column_size(r.message) < 2000 THEN 2000
                                    ELSE octet_length(r.message::text) END AS bytes) AS b
)
UPDATE ironbeat.runs r SET publish_at = clock_timestamp() + make_interval(secs => %(hold)s)
FROM sized s WHERE r.id = s.id AND s.before < %(bytes)s
RETURNING r.id, r.queue, r.priority, r.message

-- outbox_queues: which queues have anything in the outbox; one look into the index for each
WITH RECURSIVE q AS (
    (SELECT queue FROM ironbeat.runs WHERE publish_at IS NOT NULL ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT r.queue FROM ironbeat.runs r WHERE r.publish_at IS NOT NULL AND r.queue > q.queue
            ORDER BY r.queue LIMIT 1)
    FROM q WHERE q.queue IS NOT NULL
)
SELECT queue FROM q WHERE queue IS NOT NULL

-- not_published: the broker did not take these; whoever can may have them at once, the oldest first
UPDATE ironbeat.runs SET publish_at = least(clock_timestamp(),
    coalesce(eta - interval '15 seconds', created_at))
WHERE id = ANY(%(ids)s) AND publish_at > clock_timestamp() AND publish_at <> 'infinity'
    AND state IN ('pending', 'retrying')

-- get_live: one live run
SELECT {columns} FROM ironbeat.runs WHERE id = %(id)s

-- ids_beginning: the ids that begin so, live and ended
SELECT id FROM ironbeat.runs WHERE id ^@ %(beginning)s
UNION
SELECT id FROM ironbeat.run_history WHERE id ^@ %(beginning)s
ORDER BY id LIMIT %(limit)s

-- get_ended: one ended run, wherever in the history
SELECT {columns} FROM ironbeat.run_history WHERE id = %(id)s ORDER BY ended_at DESC LIMIT 1

-- waiting_since: runs of one queue that were handed over a while ago and that nobody has begun
SELECT id, retries, replacements FROM ironbeat.runs
WHERE queue = %(queue)s AND state = 'published' AND message IS NOT NULL
    AND coalesce(published_at, created_at) < clock_timestamp() - make_interval(secs => %(age)s)
ORDER BY created_at LIMIT %(limit)s

-- publish_again: into the outbox once more, of runs that nobody executes
UPDATE ironbeat.runs SET state = 'pending', publish_at = clock_timestamp()
WHERE id = ANY(%(ids)s) AND state = 'published' AND message IS NOT NULL

-- publish_lost: into the outbox once more, of runs whose messages a broker has lost; in their order
UPDATE ironbeat.runs SET state = CASE state WHEN 'published' THEN 'pending' ELSE state END,
    publish_at = least(clock_timestamp(), coalesce(eta - interval '15 seconds', created_at))
WHERE id IN (SELECT id FROM ironbeat.runs
             WHERE state IN ('published', 'retrying') AND publish_at IS NULL AND message IS NOT NULL
                 AND coalesce(published_at, created_at)
                     <= statement_timestamp() - make_interval(secs => %(age)s)
             LIMIT %(limit)s FOR UPDATE SKIP LOCKED)

-- reroute: runs that nobody has begun go to another queue; a copy that waits in the first one is
-- refused once the run has begun or ended. One that was handed over just now and is not marked yet
-- stays for the moment: the mark, when it comes, would take it out of the outbox again. Who moves it
-- publishes it at once, so the outbox leaves it for a while, and whoever would move it on waits.
-- Plain messages stay: whether the ledger has one by now is a matter of moments
UPDATE ironbeat.runs SET queue = %(to)s,
    state = CASE state WHEN 'published' THEN 'pending' ELSE state END,
    message = jsonb_set(message::jsonb, '{routing_key}', to_jsonb(%(to)s::text))::json,
    publish_at = CASE WHEN state = 'published' OR coalesce(publish_at, '-infinity') <= clock_timestamp()
                      THEN clock_timestamp() + make_interval(secs => %(grace)s)
                      ELSE publish_at END
WHERE id IN (SELECT id FROM ironbeat.runs WHERE queue = %(queue)s AND message IS NOT NULL AND durable
             AND (state = 'published' OR state IN ('pending', 'retrying') AND (
                 coalesce(publish_at, '-infinity') <= clock_timestamp()
                 OR eta > clock_timestamp() + interval '5 seconds'))
             ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING id, retries, replacements

-- movable_later: runs of a queue that cannot be rerouted yet
SELECT count(*) FROM ironbeat.runs WHERE queue = %(queue)s AND message IS NOT NULL AND durable
    AND state IN ('pending', 'retrying')
