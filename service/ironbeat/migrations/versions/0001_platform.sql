-- The platform's tables. Live runs stand in one unpartitioned table, so that their id is unique;
-- ended runs move to `run_history`, partitioned by the time the run was created. A message carries
-- that time with it, so that "has this run ended already?" looks into exactly one partition.

CREATE TABLE ironbeat.schedules (
    id                      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name                    text NOT NULL UNIQUE CHECK (name <> '' AND length(name) <= 200),
    workload                text NOT NULL DEFAULT '',
    task                    text NOT NULL CHECK (task <> ''),
    kind                    text NOT NULL CHECK (kind IN ('cron', 'interval', 'solar', 'once')),
    expression              text NOT NULL CHECK (expression <> ''),
    timezone                text NOT NULL,
    args                    jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(args) = 'array'),
    kwargs                  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(kwargs) = 'object'),
    -- Go out with every message, beside Celery's own headers.
    headers                 jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(headers) = 'object'),
    queue                   text,
    priority                smallint,
    starts_at               timestamptz CHECK (isfinite(starts_at)),
    ends_at                 timestamptz CHECK (isfinite(ends_at)),
    jitter_seconds          integer NOT NULL DEFAULT 0 CHECK (jitter_seconds >= 0),
    expires_seconds         integer CHECK (expires_seconds > 0),
    catch_up                text NOT NULL DEFAULT 'latest'
                            CHECK (catch_up IN ('skip', 'latest', 'all', 'window')),
    catch_up_max            integer NOT NULL DEFAULT 100 CHECK (catch_up_max > 0),
    catch_up_window_seconds integer CHECK (catch_up_window_seconds > 0),
    overlap                 text NOT NULL DEFAULT 'skip'
                            CHECK (overlap IN ('skip', 'queue_one', 'allow', 'cancel_other')),
    enabled                 boolean NOT NULL DEFAULT true,
    -- The definition that code declares (NULL: none, or no longer), and when an operator last
    -- changed the row: an edited row is never overwritten by an import.
    declared                jsonb,
    edited_at               timestamptz,
    created_at              timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),
    -- An interval counts from here: fires are anchor_at + k * interval.
    anchor_at               timestamptz NOT NULL DEFAULT now(),
    -- The next fire's nominal time, and when it is due (nominal time plus jitter). Both NULL: beat
    -- has still to plan it (new, or edited). 'infinity': it never fires again.
    next_scheduled_for      timestamptz,
    next_fire_at            timestamptz,
    last_scheduled_for      timestamptz,
    last_fired_at           timestamptz
) WITH (fillfactor = 80);
CREATE INDEX schedules_due ON ironbeat.schedules (next_fire_at) WHERE enabled;
CREATE INDEX schedules_unplanned ON ironbeat.schedules (id) WHERE enabled AND next_fire_at IS NULL;

-- A change of what decides the time makes beat plan the row anew, from that moment on, whoever
-- changed it and how: what was missed while a schedule was paused is not caught up. `updated_at`
-- tells a beat that it has read an older version; the beats' own updates leave it alone.
CREATE FUNCTION ironbeat.schedule_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.kind, NEW.expression, NEW.timezone, NEW.anchor_at, NEW.starts_at, NEW.ends_at,
            NEW.jitter_seconds, NEW.enabled)
        IS DISTINCT FROM
       (OLD.kind, OLD.expression, OLD.timezone, OLD.anchor_at, OLD.starts_at, OLD.ends_at,
            OLD.jitter_seconds, OLD.enabled)
    THEN
        NEW.next_fire_at := NULL;
        NEW.next_scheduled_for := NULL;
    END IF;
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER schedule_changed BEFORE UPDATE OF workload, task, kind, expression, timezone, args,
    kwargs, headers, queue, priority, starts_at, ends_at, jitter_seconds, expires_seconds, catch_up,
    catch_up_max, catch_up_window_seconds, overlap, enabled, declared, edited_at, anchor_at
    ON ironbeat.schedules FOR EACH ROW EXECUTE FUNCTION ironbeat.schedule_changed();

-- Beats listen; the planner's own updates touch none of these columns and notify nobody.
CREATE FUNCTION ironbeat.notify_schedules() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY ironbeat_schedules;
    RETURN NULL;
END $$;
CREATE TRIGGER schedules_notify_edit AFTER UPDATE OF kind, expression, timezone, jitter_seconds,
    enabled, starts_at, ends_at, anchor_at ON ironbeat.schedules
    FOR EACH STATEMENT EXECUTE FUNCTION ironbeat.notify_schedules();
CREATE TRIGGER schedules_notify_set AFTER INSERT OR DELETE ON ironbeat.schedules
    FOR EACH STATEMENT EXECUTE FUNCTION ironbeat.notify_schedules();

-- What makes a fire make one run.
CREATE TABLE ironbeat.fires (
    schedule_id   bigint NOT NULL,
    scheduled_for timestamptz NOT NULL,
    run_id        text COLLATE "C" NOT NULL,
    fired_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (schedule_id, scheduled_for)
);
CREATE INDEX fires_fired_at ON ironbeat.fires USING brin (fired_at);

CREATE TABLE ironbeat.runs (
    id                  text COLLATE "C" PRIMARY KEY,
    created_at          timestamptz NOT NULL DEFAULT now(),
    task                text NOT NULL,
    workload            text NOT NULL DEFAULT '',
    queue               text NOT NULL DEFAULT 'default',
    priority            smallint,
    state               text NOT NULL CHECK (state IN ('pending', 'published', 'running', 'retrying',
                            'succeeded', 'failed', 'cancelled', 'skipped', 'expired', 'dead')),
    durable             boolean NOT NULL DEFAULT false,
    schedule_id         bigint,
    schedule_name       text,
    scheduled_for       timestamptz,
    idempotency_key     text,
    parent_id           text COLLATE "C",
    root_id             text COLLATE "C",
    group_id            text COLLATE "C",
    eta                 timestamptz,
    expires_at          timestamptz,
    -- The outbox: when this run has to be published. NULL: nothing to publish; 'infinity': held
    -- back until another run ends.
    publish_at          timestamptz,
    published_at        timestamptz,
    started_at          timestamptz,
    ended_at            timestamptz,
    -- The fencing token: how many executions were let proceed.
    attempt             integer NOT NULL DEFAULT 0,
    -- What tells a retry's or a replacement's message from a copy of an earlier one.
    retries             integer NOT NULL DEFAULT 0,
    replacements        integer NOT NULL DEFAULT 0,
    -- How often the worker that ran it died.
    crashes             integer NOT NULL DEFAULT 0,
    lease_id            text COLLATE "C",
    worker              text,
    argsrepr            text,
    kwargsrepr          text,
    message             json,
    progress            json,
    result              json,
    error               text,
    traceback           text,
    reason              text,
    attempts            json,
    cancel_requested_at timestamptz
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX runs_outbox ON ironbeat.runs (publish_at) WHERE publish_at IS NOT NULL;
CREATE INDEX runs_of_schedule ON ironbeat.runs (schedule_id, scheduled_for)
    WHERE schedule_id IS NOT NULL;
CREATE INDEX runs_of_lease ON ironbeat.runs (lease_id) WHERE lease_id IS NOT NULL;
CREATE INDEX runs_created_at ON ironbeat.runs (created_at);

CREATE TABLE ironbeat.run_history (
    LIKE ironbeat.runs INCLUDING DEFAULTS,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE INDEX run_history_created_at ON ironbeat.run_history (created_at);
CREATE INDEX run_history_ended_at ON ironbeat.run_history (ended_at);
CREATE INDEX run_history_of_schedule ON ironbeat.run_history (schedule_id, scheduled_for)
    WHERE schedule_id IS NOT NULL;
CREATE INDEX run_history_unsuccessful ON ironbeat.run_history (ended_at)
    WHERE state <> 'succeeded';
-- Catches what no dated partition covers, so that an outcome is never refused for want of one.
CREATE TABLE ironbeat.run_history_other PARTITION OF ironbeat.run_history DEFAULT;

-- A repeated submission with the same key inside its window returns the first run.
CREATE TABLE ironbeat.idempotency_keys (
    key        text PRIMARY KEY,
    run_id     text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX idempotency_keys_expiry ON ironbeat.idempotency_keys (expires_at);

-- A process's claim that it is alive. `steady_since` restarts whenever a renewal came too late:
-- only who has held its own lease for a whole period may take over another's work, so that an
-- outage of the database makes nobody look dead.
CREATE TABLE ironbeat.leases (
    id           text COLLATE "C" PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('worker', 'beat', 'scheduler', 'api')),
    name         text NOT NULL,
    host         text NOT NULL,
    pid          integer NOT NULL,
    queues       text[] NOT NULL DEFAULT '{}',
    started_at   timestamptz NOT NULL DEFAULT now(),
    renewed_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    steady_since timestamptz NOT NULL DEFAULT now(),
    info         jsonb NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);
CREATE INDEX leases_expires_at ON ironbeat.leases (expires_at);

-- Settings that change while the suite runs, and figures that outlive a process.
CREATE TABLE ironbeat.flags (
    name       text PRIMARY KEY,
    value      jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
