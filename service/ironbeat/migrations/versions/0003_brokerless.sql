-- What the suite needs where there is no broker: an order in which workers draw runs from the
-- ledger, and a place for results and for the counting of chords.

-- Runs whose message the ledger holds, in the order in which they are drawn: by queue, priority (as
-- Redis has it: 0 first) and the time since which they are due. What is held back sorts last.
CREATE INDEX runs_drawable ON ironbeat.runs (
    queue, (least(greatest(coalesce(priority, 0), 0), 9)), (coalesce(publish_at, created_at)))
    WHERE message IS NOT NULL AND state IN ('pending', 'published', 'retrying');

-- Celery's results where Redis does not keep them, by the names of the keys that Redis would have.
CREATE TABLE ironbeat.kept (
    key        text COLLATE "C" PRIMARY KEY,
    value      bytea NOT NULL,
    -- A success is not written over.
    final      boolean NOT NULL DEFAULT false,
    expires_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX kept_expiry ON ironbeat.kept (expires_at) WHERE expires_at IS NOT NULL;

-- A chord counts its parts here, each once by its id, so that it is counted in one place whatever
-- becomes of Redis meanwhile. `size` is unknown until the last part is about to be sent.
CREATE TABLE ironbeat.chords (
    id         text COLLATE "C" PRIMARY KEY,
    size       integer,
    added      integer NOT NULL DEFAULT 0,
    done       integer NOT NULL DEFAULT 0,
    structure  text,
    ended_at   timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
CREATE INDEX chords_created_at ON ironbeat.chords (created_at);

CREATE TABLE ironbeat.chord_parts (
    chord_id text COLLATE "C" NOT NULL,
    run_id   text COLLATE "C" NOT NULL,
    place    integer,
    state    text NOT NULL,
    result   text NOT NULL,
    PRIMARY KEY (chord_id, run_id)
);
