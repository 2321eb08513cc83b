-- renew: the claim that this process is alive; steadiness starts anew when it came too late
INSERT INTO ironbeat.leases AS l (id, kind, name, host, pid, queues, expires_at, info)
VALUES (%(id)s, %(kind)s, %(name)s, %(host)s, %(pid)s, %(queues)s,
    clock_timestamp() + make_interval(secs => %(seconds)s), %(info)s::jsonb)
ON CONFLICT (id) DO UPDATE SET
    renewed_at = clock_timestamp(),
    steady_since = CASE WHEN l.expires_at < clock_timestamp() THEN clock_timestamp()
                        ELSE l.steady_since END,
    expires_at = excluded.expires_at, info = excluded.info, queues = excluded.queues
RETURNING l.steady_since = clock_timestamp() AND l.started_at < l.steady_since

-- drop: this process ends in order and holds nothing any more
DELETE FROM ironbeat.leases WHERE id = %(id)s

-- lapsed: whose work may be taken over, by one whose own lease was held for a whole period
SELECT l.id, l.kind, l.name, l.host, l.pid FROM ironbeat.leases l
WHERE l.expires_at < clock_timestamp() AND EXISTS (
    SELECT FROM ironbeat.leases me WHERE me.id = %(me)s AND me.expires_at > clock_timestamp()
        AND me.steady_since <= clock_timestamp() - make_interval(secs => %(seconds)s))
ORDER BY l.expires_at LIMIT 20

-- neighbours: leases of this host under the same name; their processes can be looked up
SELECT l.id, l.kind, l.name, l.host, l.pid FROM ironbeat.leases l
WHERE l.host = %(host)s AND l.kind = %(kind)s AND l.name = %(name)s AND l.id <> %(me)s

-- lock: one heir at a time
SELECT l.info FROM ironbeat.leases l WHERE l.id = %(id)s FOR UPDATE SKIP LOCKED

-- claimed: what a dead worker had claimed, and whether a worker has died with it before
SELECT id, attempts IS NOT NULL FROM ironbeat.runs
WHERE lease_id = %(id)s AND state = 'running'

-- expire: a process known to be dead holds nothing any more
UPDATE ironbeat.leases SET expires_at = clock_timestamp() - interval '1 millisecond'
WHERE id = %(id)s AND expires_at > clock_timestamp()

-- orphans: running work of a dead worker; its message is published again if the ledger has it.
-- A death counts against the runs that were executing; what was claimed and had not begun, or was
-- done already, goes back as if it had never been taken.
UPDATE ironbeat.runs r SET state = CASE WHEN message IS NULL THEN 'published' ELSE 'pending' END,
    publish_at = CASE WHEN message IS NULL THEN NULL
                      ELSE clock_timestamp() + make_interval(secs => %(grace)s) END,
    lease_id = NULL, progress = NULL,
    crashes = crashes + d.suspect::integer,
    attempt = attempt - (NOT d.suspect)::integer,
    started_at = CASE WHEN d.suspect THEN started_at END,
    worker = CASE WHEN d.suspect THEN worker END,
    traceback = coalesce(d.words, traceback),
    attempts = CASE WHEN d.suspect THEN
        (coalesce(attempts::jsonb, '[]') || jsonb_build_object(
            'attempt', attempt, 'worker', worker, 'started_at', started_at,
            'ended_at', clock_timestamp(), 'error', d.error))::json
        ELSE attempts END
FROM json_to_recordset(%(dead)s::json) AS d (id text, suspect boolean, error text, words text)
WHERE r.id = d.id AND lease_id = %(id)s AND state = 'running'
RETURNING r.id, crashes, d.suspect

-- count_loss: processes whose work was taken over, by kind, since they were first counted
INSERT INTO ironbeat.flags AS f (name, value)
VALUES ('leases.lost', jsonb_build_object(%(kind)s::text, 1))
ON CONFLICT (name) DO UPDATE SET updated_at = clock_timestamp(), value = f.value
    || jsonb_build_object(%(kind)s::text, coalesce((f.value ->> %(kind)s)::bigint, 0) + 1)

-- lost: how many that were
SELECT value FROM ironbeat.flags WHERE name = 'leases.lost'

-- testify: a neighbour has seen this process dead, and says what it was doing
UPDATE ironbeat.leases SET expires_at = least(expires_at, clock_timestamp() - interval '1 millisecond'),
    info = info || jsonb_build_object('testimony', %(testimony)s::jsonb)
WHERE id = %(id)s

-- vouch: a neighbour has seen that these processes live, though none of their threads can say so
UPDATE ironbeat.leases SET renewed_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE id = ANY(%(ids)s) AND expires_at > clock_timestamp()

-- list: everybody who holds or held a lease
SELECT l.id, l.kind, l.name, l.host, l.pid, l.queues, l.started_at, l.renewed_at, l.expires_at,
    l.expires_at > clock_timestamp() AS live, l.info
FROM ironbeat.leases l WHERE %(kind)s::text IS NULL OR l.kind = %(kind)s ORDER BY l.kind, l.name
