-- Dead letters: what an operator did about a run that is dead. NULL: nothing yet.
ALTER TABLE ironbeat.run_history ADD COLUMN handled text;

-- A backlog of a million is looked into every second, by queue and for what has expired.
CREATE INDEX runs_outbox_of_queue ON ironbeat.runs (queue, publish_at) WHERE publish_at IS NOT NULL;
CREATE INDEX runs_expiry ON ironbeat.runs (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE ironbeat.leases DROP CONSTRAINT leases_kind_check;
ALTER TABLE ironbeat.leases ADD CONSTRAINT leases_kind_check
    CHECK (kind IN ('worker', 'beat', 'scheduler', 'api', 'watchdog', 'scaler'));

-- Limits that hold over all workers together. A throttle is a task's name, or that and a key.
CREATE TABLE ironbeat.throttles (
    name        text PRIMARY KEY,
    -- When the next start is free, by the rate.
    next_at     timestamptz NOT NULL DEFAULT '-infinity',
    concurrency integer
) WITH (fillfactor = 50);

-- Who executes under a throttle (lease_id is set), and who waits for it. A waiting run stands in
-- the ledger meanwhile, not in a worker.
CREATE TABLE ironbeat.throttle_places (
    name      text NOT NULL,
    run_id    text COLLATE "C" NOT NULL,
    -- Who came first goes first.
    ticket    bigint GENERATED ALWAYS AS IDENTITY,
    lease_id  text COLLATE "C",
    -- The start that the rate has reserved for it.
    due_at    timestamptz,
    -- It waits for another one to end.
    parked    boolean NOT NULL DEFAULT false,
    -- It was told to come.
    called_at timestamptz,
    PRIMARY KEY (name, run_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX throttle_places_line ON ironbeat.throttle_places (name, ticket) WHERE parked;
CREATE INDEX throttle_places_held ON ironbeat.throttle_places (name) WHERE lease_id IS NOT NULL;
CREATE INDEX throttle_places_called ON ironbeat.throttle_places (name)
    WHERE parked AND called_at IS NOT NULL;

-- Calls those who wait longest, as far as there are free places; the caller holds the throttle's
-- row. A call that nobody followed for 30 seconds (its message was lost) is repeated. Returns the
-- runs, which are due for publishing now.
CREATE FUNCTION ironbeat.throttle_call(throttle text, most integer) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    free integer;
    waiting record;
BEGIN
    SELECT most - count(*) FILTER (WHERE p.lease_id IS NOT NULL)
        - count(*) FILTER (WHERE p.lease_id IS NULL
                           AND p.called_at > clock_timestamp() - interval '30 seconds')
    INTO free FROM ironbeat.throttle_places p
    WHERE p.name = throttle AND (p.lease_id IS NOT NULL OR p.parked AND p.called_at IS NOT NULL);
    FOR waiting IN
        SELECT p.run_id FROM ironbeat.throttle_places p
        WHERE p.name = throttle AND p.parked
            AND (p.called_at IS NULL OR p.called_at <= clock_timestamp() - interval '30 seconds')
        ORDER BY p.ticket
    LOOP
        EXIT WHEN free <= 0;
        UPDATE ironbeat.runs r SET publish_at = clock_timestamp()
        WHERE r.id = waiting.run_id AND r.state IN ('pending', 'published', 'retrying');
        IF FOUND THEN
            UPDATE ironbeat.throttle_places p SET called_at = clock_timestamp()
            WHERE p.name = throttle AND p.run_id = waiting.run_id;
            free := free - 1;
            RETURN NEXT waiting.run_id;
        ELSE
            -- Cancelled or expired while it waited.
            DELETE FROM ironbeat.throttle_places p
            WHERE p.name = throttle AND p.run_id = waiting.run_id AND p.parked;
        END IF;
    END LOOP;
END $$;

-- A run wants to begin. 0: it may; a number of seconds: it has a start reserved then; NULL: it
-- waits in line and is called. Whoever was promised a start, or called, comes again with the same
-- id and is let in. `pace`: seconds between two starts (NULL: no rate); `burst`: how many starts
-- may come at once after a pause; `most`: how many may run at once (NULL: any number).
CREATE FUNCTION ironbeat.throttle_enter(
    throttle text, run text, lease text, pace double precision, burst integer, most integer
) RETURNS double precision LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz;
    free_at timestamptz;
    place ironbeat.throttle_places;
    held integer;
    called integer;
BEGIN
    INSERT INTO ironbeat.throttles AS t (name, concurrency) VALUES (throttle, most)
    ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency
    RETURNING t.next_at INTO free_at;
    moment := clock_timestamp();
    SELECT * INTO place FROM ironbeat.throttle_places p WHERE p.name = throttle AND p.run_id = run;

    IF pace IS NOT NULL AND place.due_at IS NULL THEN
        free_at := greatest(free_at, moment - make_interval(secs => pace * (burst - 1)));
        UPDATE ironbeat.throttles t SET next_at = free_at + make_interval(secs => pace)
        WHERE t.name = throttle;
        IF free_at > moment THEN
            INSERT INTO ironbeat.throttle_places AS p (name, run_id, due_at)
            VALUES (throttle, run, free_at)
            ON CONFLICT (name, run_id) DO UPDATE SET due_at = excluded.due_at, lease_id = NULL;
            RETURN extract(epoch FROM free_at - moment);
        END IF;
        place.due_at := moment;
    ELSIF pace IS NOT NULL AND place.due_at > moment + interval '5 milliseconds' THEN
        RETURN extract(epoch FROM place.due_at - moment);
    END IF;

    IF most IS NULL THEN
        DELETE FROM ironbeat.throttle_places p WHERE p.name = throttle AND p.run_id = run;
        RETURN 0;
    END IF;
    IF place.lease_id IS NOT NULL THEN
        -- An earlier attempt of the same run, whose worker is gone.
        UPDATE ironbeat.throttle_places p SET lease_id = lease
        WHERE p.name = throttle AND p.run_id = run;
        RETURN 0;
    END IF;
    SELECT count(*) FILTER (WHERE p.lease_id IS NOT NULL),
        count(*) FILTER (WHERE p.lease_id IS NULL AND p.run_id <> run
                         AND p.called_at > moment - interval '30 seconds')
    INTO held, called FROM ironbeat.throttle_places p
    WHERE p.name = throttle AND (p.lease_id IS NOT NULL OR p.parked AND p.called_at IS NOT NULL);
    IF held + called < most AND (coalesce(place.parked, false) AND place.called_at IS NOT NULL
        OR NOT EXISTS (SELECT FROM ironbeat.throttle_places p
                       WHERE p.name = throttle AND p.parked AND p.run_id <> run
                           AND p.called_at IS NULL))
    THEN
        INSERT INTO ironbeat.throttle_places AS p (name, run_id, lease_id, due_at)
        VALUES (throttle, run, lease, place.due_at)
        ON CONFLICT (name, run_id) DO UPDATE
        SET lease_id = excluded.lease_id, parked = false, called_at = NULL;
        RETURN 0;
    END IF;
    INSERT INTO ironbeat.throttle_places AS p (name, run_id, parked, due_at)
    VALUES (throttle, run, true, place.due_at)
    ON CONFLICT (name, run_id) DO UPDATE SET parked = true, called_at = NULL,
        due_at = excluded.due_at;
    RETURN NULL;
END $$;

-- A run has left (it ended, in whatever way); returns who is called in its place.
CREATE FUNCTION ironbeat.throttle_leave(throttle text, run text) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    most integer;
BEGIN
    SELECT t.concurrency INTO most FROM ironbeat.throttles t WHERE t.name = throttle FOR UPDATE;
    DELETE FROM ironbeat.throttle_places p WHERE p.name = throttle AND p.run_id = run;
    IF most IS NOT NULL THEN
        RETURN QUERY SELECT ironbeat.throttle_call(throttle, most);
    END IF;
END $$;

-- Frees the places of workers that died and of runs that ended without leaving, and calls others;
-- looks at up to `at_most` throttles that anybody waits for. Returns the runs that were called.
CREATE FUNCTION ironbeat.throttle_sweep(at_most integer) RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    throttle record;
BEGIN
    FOR throttle IN
        SELECT t.name, t.concurrency FROM ironbeat.throttles t
        WHERE t.concurrency IS NOT NULL AND EXISTS (
            SELECT FROM ironbeat.throttle_places p WHERE p.name = t.name AND p.parked)
        LIMIT at_most FOR UPDATE SKIP LOCKED
    LOOP
        DELETE FROM ironbeat.throttle_places p
        WHERE p.name = throttle.name AND p.lease_id IS NOT NULL
            AND NOT EXISTS (SELECT FROM ironbeat.runs r
                            WHERE r.id = p.run_id AND r.state = 'running'
                                AND r.lease_id = p.lease_id);
        RETURN QUERY SELECT ironbeat.throttle_call(throttle.name, throttle.concurrency);
    END LOOP;
END $$;
