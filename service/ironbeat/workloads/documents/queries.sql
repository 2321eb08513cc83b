-- add_batch: a batch
INSERT INTO documents.batches (id, source) VALUES (%(id)s, %(source)s) ON CONFLICT (id) DO NOTHING

-- add_document: a document, or what became of it by now
INSERT INTO documents.documents AS d (
    id, batch_id, path, title, media_type, encoding, bytes, use_celery, status, reason, total)
VALUES (%(id)s, %(batch_id)s, %(path)s, %(title)s, %(media_type)s, %(encoding)s, %(bytes)s,
    %(use_celery)s, %(status)s, %(reason)s, %(total)s)
ON CONFLICT (id) DO UPDATE SET
    batch_id = excluded.batch_id, path = excluded.path, use_celery = excluded.use_celery,
    reason = excluded.reason,
    status = CASE WHEN excluded.status = 'skipped' OR d.status = 'skipped' THEN excluded.status
                  ELSE d.status END
RETURNING d.id, d.status, d.total, d.done, d.failed, (xmax = 0) AS new

-- forget_path: what an older version of the same file had
DELETE FROM documents.documents WHERE path = %(path)s AND id <> %(id)s AND path <> ''

-- add_chunks: the chunks of a document; those that are there already stay as they are
INSERT INTO documents.chunks (id, document_id, position, heading, text)
SELECT i.id, %(document_id)s, i.position, i.heading, i.text
FROM json_to_recordset(%(chunks)s::json) AS i (id text, position integer, heading text, text text)
ON CONFLICT DO NOTHING

-- count_chunks: how many chunks a document has now
UPDATE documents.documents d SET total = found.total, updated_at = clock_timestamp(),
    status = CASE WHEN d.done + d.failed < found.total AND d.status IN ('completed', 'partial', 'failed')
                  THEN 'stored' ELSE d.status END
FROM (SELECT count(*) AS total FROM documents.chunks WHERE document_id = %(id)s) AS found
WHERE d.id = %(id)s RETURNING d.total

-- begin: a document's pipeline begins; chunks that failed before have another chance
WITH again AS (
    UPDATE documents.chunks SET status = 'waiting', again = again + 1, error = NULL, run_id = NULL
    WHERE document_id = %(id)s AND status = 'failed' RETURNING id
)
UPDATE documents.documents d SET
    status = CASE WHEN d.done = d.total AND d.total > 0 THEN d.status ELSE 'processing' END,
    failed = d.failed - (SELECT count(*) FROM again),
    submitted = d.submitted - (SELECT count(*) FROM again),
    begun = d.begun + 1, updated_at = clock_timestamp(), completed_at = NULL
WHERE d.id = %(id)s AND d.status <> 'skipped'
RETURNING d.total, d.done, d.use_celery

-- lock_document: whoever changes the chunks of a document does so alone, and locks it before them
SELECT total, submitted, done, failed, use_celery, status FROM documents.documents
WHERE id = %(id)s FOR UPDATE

-- lock_document_of: the same for a document that is known by one of its chunks
SELECT d.id FROM documents.documents d
WHERE d.id = (SELECT c.document_id FROM documents.chunks c WHERE c.id = %(id)s) FOR UPDATE

-- next_waiting: the next chunks that nobody has
SELECT id, text, again FROM documents.chunks
WHERE document_id = %(id)s AND status = 'waiting' ORDER BY position LIMIT %(limit)s

-- mark_submitted: runs have them now
WITH out AS (
    UPDATE documents.chunks c SET status = 'submitted', run_id = i.run_id, side = i.side,
        submitted_at = clock_timestamp()
    FROM json_to_recordset(%(runs)s::json) AS i (id text, run_id text, side text)
    WHERE c.id = i.id AND c.status = 'waiting' RETURNING c.id
)
UPDATE documents.documents SET submitted = submitted + (SELECT count(*) FROM out),
    updated_at = clock_timestamp()
WHERE id = %(id)s RETURNING submitted

-- stored_metadata: what a chunk has already; no row: it is not one of ours
SELECT document_id, status, metadata FROM documents.chunks WHERE id = %(id)s

-- complete: a chunk has its metadata; the row says how its document stands now, none: it had it before
WITH chunk AS (
    SELECT c.id, c.document_id, c.status FROM documents.chunks c
    WHERE c.id = %(id)s AND c.status <> 'completed' FOR UPDATE
), written AS (
    UPDATE documents.chunks c SET status = 'completed', metadata = %(metadata)s::jsonb, error = NULL,
        completed_at = clock_timestamp(), side = coalesce(%(side)s, c.side)
    FROM chunk WHERE c.id = chunk.id
)
UPDATE documents.documents d SET done = d.done + 1,
    failed = d.failed - (chunk.status = 'failed')::integer,
    submitted = d.submitted + (chunk.status = 'waiting')::integer, updated_at = clock_timestamp()
FROM chunk WHERE d.id = chunk.document_id
RETURNING d.id, d.total, d.submitted, d.done, d.failed

-- give_up: a chunk failed for good; as `complete`
WITH chunk AS (
    SELECT c.id, c.document_id, c.status FROM documents.chunks c
    WHERE c.id = %(id)s AND c.status IN ('waiting', 'submitted') FOR UPDATE
), written AS (
    UPDATE documents.chunks c SET status = 'failed', error = %(error)s,
        completed_at = clock_timestamp()
    FROM chunk WHERE c.id = chunk.id
)
UPDATE documents.documents d SET failed = d.failed + 1,
    submitted = d.submitted + (chunk.status = 'waiting')::integer, updated_at = clock_timestamp()
FROM chunk WHERE d.id = chunk.document_id
RETURNING d.id, d.total, d.submitted, d.done, d.failed

-- finish: the document's end, with what its chunks say together
UPDATE documents.documents d SET
    status = CASE WHEN d.done = d.total THEN 'completed' WHEN d.done = 0 THEN 'failed'
                  ELSE 'partial' END,
    language = (SELECT c.metadata ->> 'language' FROM documents.chunks c
                WHERE c.document_id = d.id AND c.status = 'completed'
                GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1),
    keywords = coalesce((
        SELECT jsonb_agg(jsonb_build_object('text', k.word, 'score', round(k.score, 4)) ORDER BY k.score DESC, k.word)
        FROM (SELECT word ->> 'text' AS word, sum((word ->> 'score')::numeric) AS score
              FROM documents.chunks c, jsonb_array_elements(c.metadata -> 'keywords') AS word
              WHERE c.document_id = d.id AND c.status = 'completed'
              GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20) AS k), '[]'),
    completed_at = coalesce(d.completed_at, clock_timestamp()), updated_at = clock_timestamp()
WHERE d.id = %(id)s AND d.done + d.failed = d.total AND d.status <> 'skipped'
RETURNING d.status, d.done, d.failed, d.total

-- document: how one document stands
SELECT id, path, title, media_type, encoding, bytes, language, keywords, status, reason, use_celery,
    begun, total, submitted, done, failed, batch_id, created_at, completed_at
FROM documents.documents WHERE id = %(id)s

-- of_batch: the documents of a batch
SELECT id, path, title, status, reason, total, submitted, done, failed
FROM documents.documents WHERE batch_id = %(batch_id)s ORDER BY path, id

-- batch: how a batch stands
SELECT count(*) AS documents,
    count(*) FILTER (WHERE status IN ('completed', 'partial', 'failed', 'skipped')) AS ended,
    count(*) FILTER (WHERE status = 'skipped') AS skipped,
    coalesce(sum(total), 0)::bigint AS chunks, coalesce(sum(done), 0)::bigint AS done,
    coalesce(sum(failed), 0)::bigint AS failed
FROM documents.documents WHERE batch_id = %(batch_id)s

-- listing: the newest documents
SELECT id, path, title, status, reason, language, total, done, failed
FROM documents.documents
WHERE %(status)s::text IS NULL OR status = %(status)s
ORDER BY created_at DESC, id LIMIT %(limit)s

-- chunks_of: the chunks of a document with their metadata, in order
SELECT id AS chunk_id, document_id, position, heading, text, status, side, run_id, error, metadata
FROM documents.chunks WHERE document_id = %(id)s ORDER BY position

-- sides: how many chunks each queue has brought, and what is open
SELECT coalesce(side, '') AS side, status, count(*) AS chunks FROM documents.chunks
WHERE %(batch_id)s::text IS NULL OR document_id IN (
    SELECT id FROM documents.documents WHERE batch_id = %(batch_id)s)
GROUP BY 1, 2 ORDER BY 1, 2

-- idle: documents under way in which nothing has happened for a while
SELECT id FROM documents.documents
WHERE status = 'processing' AND updated_at < clock_timestamp() - make_interval(secs => %(age)s)
ORDER BY updated_at LIMIT %(limit)s

-- out: chunks of a document that runs have had for a while
SELECT id, run_id FROM documents.chunks
WHERE document_id = %(id)s AND status = 'submitted'
    AND submitted_at < clock_timestamp() - make_interval(secs => %(age)s)
ORDER BY position LIMIT %(limit)s

-- take_back: chunks whose run is gone are handed out once more
WITH back AS (
    UPDATE documents.chunks SET status = 'waiting', run_id = NULL, again = again + 1
    WHERE id = ANY(%(ids)s) AND status = 'submitted' RETURNING id
)
UPDATE documents.documents SET submitted = submitted - (SELECT count(*) FROM back)
WHERE id = %(document_id)s RETURNING submitted

-- touch: a document was looked after
UPDATE documents.documents SET updated_at = clock_timestamp() WHERE id = %(id)s

-- live_runs: what waits and runs in one queue, and how much of it has failed before
SELECT count(*) FILTER (WHERE state IN ('pending', 'published', 'retrying')) AS waiting,
    count(*) FILTER (WHERE state = 'running') AS running,
    count(*) FILTER (WHERE retries > 0) AS retrying
FROM ironbeat.runs WHERE queue = %(queue)s

-- ended_runs: how the chunk tasks of one queue ended lately, and how long they took, in ms
SELECT count(*) AS ended, count(*) FILTER (WHERE state IN ('failed', 'dead')) AS failed,
    count(*) FILTER (WHERE retries > 0) AS retried,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY took) AS p50,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY took) AS p95
FROM (SELECT state, retries, extract(epoch FROM ended_at - started_at)::float8 * 1000 AS took
      FROM ironbeat.run_history
      WHERE queue = %(queue)s AND task LIKE '%%generate_metadata%%'
          AND state IN ('succeeded', 'failed', 'dead')
          AND ended_at > clock_timestamp() - make_interval(secs => %(since)s)) AS lately
