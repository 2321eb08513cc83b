-- Documents, their chunks, and the batches in which they were submitted.

CREATE SCHEMA IF NOT EXISTS documents;

CREATE TABLE documents.batches (
    id         text COLLATE "C" PRIMARY KEY,
    source     text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The counters are the chord of a document: how many of its chunks are out, done, or failed for
-- good. They are changed in the transaction that changes the chunk, so that the document's end is
-- seen once, by whoever brings the last chunk, on whichever queue.
CREATE TABLE documents.documents (
    id           text COLLATE "C" PRIMARY KEY,
    batch_id     text COLLATE "C" REFERENCES documents.batches (id) ON DELETE SET NULL,
    path         text NOT NULL DEFAULT '',
    title        text NOT NULL DEFAULT '',
    media_type   text NOT NULL DEFAULT '',
    encoding     text,
    bytes        bigint NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    language     text,
    keywords     jsonb NOT NULL DEFAULT '[]',
    use_celery   boolean NOT NULL DEFAULT false,
    -- stored: not begun; processing; completed: every chunk has its metadata; partial: some failed;
    -- failed: all did; skipped: the file could not be read, `reason` says why
    status       text NOT NULL DEFAULT 'stored' CHECK (status IN
                     ('stored', 'processing', 'completed', 'partial', 'failed', 'skipped')),
    reason       text,
    -- How often its pipeline was begun.
    begun        integer NOT NULL DEFAULT 0,
    total        integer NOT NULL DEFAULT 0 CHECK (total >= 0),
    submitted    integer NOT NULL DEFAULT 0 CHECK (submitted >= 0),
    done         integer NOT NULL DEFAULT 0 CHECK (done >= 0),
    failed       integer NOT NULL DEFAULT 0 CHECK (failed >= 0),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    completed_at timestamptz,
    CHECK (done + failed <= total)
) WITH (fillfactor = 80);
CREATE INDEX documents_of_batch ON documents.documents (batch_id);
CREATE INDEX documents_of_path ON documents.documents (path);
CREATE INDEX documents_processing ON documents.documents (updated_at) WHERE status = 'processing';

CREATE TABLE documents.chunks (
    id           text COLLATE "C" PRIMARY KEY,
    document_id  text COLLATE "C" NOT NULL REFERENCES documents.documents (id) ON DELETE CASCADE,
    position     integer NOT NULL CHECK (position >= 0),
    heading      text NOT NULL DEFAULT '',
    text         text NOT NULL,
    -- waiting: not submitted yet; submitted: a run has it; completed; failed
    status       text NOT NULL DEFAULT 'waiting' CHECK (status IN
                     ('waiting', 'submitted', 'completed', 'failed')),
    side         text CHECK (side IN ('rq', 'celery')),
    run_id       text COLLATE "C",
    -- How often it was submitted anew, after a run that ended without its metadata.
    again        integer NOT NULL DEFAULT 0,
    metadata     jsonb,
    error        text,
    submitted_at timestamptz,
    completed_at timestamptz,
    UNIQUE (document_id, position),
    CHECK ((status = 'completed') = (metadata IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX chunks_open ON documents.chunks (document_id, position)
    WHERE status IN ('waiting', 'submitted');
