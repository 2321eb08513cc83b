-- People who may log in to the dashboard; the settings' own two accounts need no row here.
CREATE TABLE ironbeat.users (
    name          text PRIMARY KEY CHECK (name <> '' AND length(name) <= 100),
    role          text NOT NULL CHECK (role IN ('viewer', 'operator')),
    password_hash text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    changed_at    timestamptz NOT NULL DEFAULT now()
);

-- Who is logged in. The cookie holds the key, this table only its digest: who reads the table
-- cannot use it.
CREATE TABLE ironbeat.web_sessions (
    digest     text COLLATE "C" PRIMARY KEY,
    name       text NOT NULL,
    role       text NOT NULL CHECK (role IN ('viewer', 'operator')),
    csrf       text NOT NULL,
    address    text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX web_sessions_expiry ON ironbeat.web_sessions (expires_at);

-- Failed logins by who and from where, for all processes of all hosts together.
CREATE TABLE ironbeat.login_failures (
    key      text PRIMARY KEY,
    failures integer NOT NULL,
    since    timestamptz NOT NULL DEFAULT now()
);

-- What people and programs changed. Written before the change and completed after it, so that
-- nothing is done that stands nowhere; `outcome` is NULL while it goes on, or when its process died.
CREATE TABLE ironbeat.audit (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    who     text NOT NULL,
    via     text NOT NULL CHECK (via IN ('dashboard', 'api', 'cli')),
    address text NOT NULL DEFAULT '',
    action  text NOT NULL,
    subject text NOT NULL DEFAULT '',
    detail  jsonb NOT NULL DEFAULT '{}',
    outcome text
);
CREATE INDEX audit_at ON ironbeat.audit (at);

-- How queues and limits went: one look per slot, whoever was first.
CREATE TABLE ironbeat.samples (
    at timestamptz PRIMARY KEY
);
CREATE TABLE ironbeat.queue_samples (
    at     timestamptz NOT NULL,
    queue  text NOT NULL,
    length integer NOT NULL,
    oldest double precision,
    PRIMARY KEY (at, queue)
);
CREATE TABLE ironbeat.limit_samples (
    at    timestamptz NOT NULL,
    name  text NOT NULL,
    value double precision,
    ok    boolean,
    PRIMARY KEY (at, name)
);
