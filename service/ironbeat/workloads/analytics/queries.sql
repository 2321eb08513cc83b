-- Chat question analytics. Statements that end a batch do so in one transaction with its claim.

-- lock: wait until this transaction is the only one at this job
SELECT pg_advisory_xact_lock(hashtextextended(%(job)s, 0))

-- try_lock: whether this transaction is the only one at this job
SELECT pg_try_advisory_xact_lock(hashtextextended(%(job)s, 0)) AS alone

-- models: those that make vectors, the serving one first
SELECT id, name, version, location, dimensions, state FROM analytics.embedding_models
WHERE state <> 'retired' ORDER BY state DESC, id

-- add_model: a new one; it serves at once when none does
INSERT INTO analytics.embedding_models
    (name, version, location, dimensions, state, serving_since)
SELECT %(name)s, %(version)s, %(location)s, %(dimensions)s,
    CASE WHEN serving THEN 'building' ELSE 'serving' END,
    CASE WHEN serving THEN NULL ELSE now() END
FROM (SELECT EXISTS (SELECT FROM analytics.embedding_models WHERE state = 'serving')) AS s (serving)
RETURNING id, state

-- retire: those that are building and were not chosen
UPDATE analytics.embedding_models SET state = 'retired'
WHERE state = 'building' AND id <> %(keep)s

-- enqueue: all messages, for a model; with a role, only its, and anew
INSERT INTO analytics.pending_embeddings (model_id, message_id, role, length, anew)
SELECT %(model)s, id, role, length, %(role)s::text IS NOT NULL
FROM analytics.chat_messages WHERE role = coalesce(%(role)s, role)
ON CONFLICT (message_id, model_id) DO UPDATE SET anew = true WHERE excluded.anew

-- claim: messages to embed, which nobody else gets; until commit they can be had back
WITH claimed AS MATERIALIZED (
    SELECT model_id, message_id, anew FROM analytics.pending_embeddings
    WHERE model_id = %(model)s AND role = %(role)s AND length >= %(min_length)s
      -- Past what this run has claimed before: not again over the entries it has made obsolete.
      AND message_id > %(after)s
    ORDER BY message_id
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM analytics.pending_embeddings AS p USING claimed AS c
    WHERE p.message_id = c.message_id AND p.model_id = c.model_id
    RETURNING p.message_id, c.anew
)
SELECT m.id, m.content, m.content_key::text AS key, t.anew
FROM taken AS t JOIN analytics.chat_messages AS m ON m.id = t.message_id
ORDER BY m.id

-- forget: vectors that are about to be replaced
DELETE FROM analytics.chat_message_embeddings_1024
WHERE model_id = %(model)s AND message_id = ANY (%(messages)s)

-- twins: give messages the vector that an equal text has already; it stays the only one in the index
INSERT INTO analytics.chat_message_embeddings_1024 (model_id, message_id, embedding, indexed)
SELECT %(model)s, c.id, twin.embedding, false
FROM unnest(%(messages)s::bigint[], %(keys)s::uuid[]) AS c (id, key)
CROSS JOIN LATERAL (
    SELECT e.embedding
    FROM analytics.chat_messages AS m
    JOIN analytics.chat_message_embeddings_1024 AS e ON e.message_id = m.id
    WHERE m.role = %(role)s AND m.content_key = c.key AND e.model_id = %(model)s AND m.id <> c.id
      AND e.indexed
      -- What waits to be made anew may be another text's vector.
      AND NOT EXISTS (SELECT FROM analytics.pending_embeddings AS p
                      WHERE p.message_id = m.id AND p.model_id = %(model)s)
    LIMIT 1
    -- It stays until commit, so that the index does not lose the text; one that is about to go, or
    -- to change, is not waited for.
    FOR SHARE OF m SKIP LOCKED
) AS twin
RETURNING message_id

-- indexed: which of these texts have a vector in the index
SELECT DISTINCT m.content_key::text AS key
FROM analytics.chat_messages AS m
JOIN analytics.chat_message_embeddings_1024 AS e ON e.message_id = m.id
WHERE m.role = %(role)s AND m.content_key = ANY (%(keys)s::uuid[]) AND e.model_id = %(model)s
  AND e.indexed
  AND NOT EXISTS (SELECT FROM analytics.pending_embeddings AS p
                  WHERE p.message_id = m.id AND p.model_id = %(model)s)

-- store: vectors, as rows.py writes them
COPY analytics.chat_message_embeddings_1024 (model_id, message_id, indexed, embedding)
FROM STDIN (FORMAT binary)

-- remaining: how many messages wait for a model; exact, as a run must know whether it is done
SELECT count(*) AS waiting FROM analytics.pending_embeddings
WHERE model_id = %(model)s AND role = %(role)s AND length >= %(min_length)s

-- has_all: whether a model has every vector that the serving one has
SELECT NOT EXISTS (
    SELECT FROM analytics.chat_message_embeddings_1024 AS s
    JOIN analytics.embedding_models AS m ON m.id = s.model_id AND m.state = 'serving'
    WHERE NOT EXISTS (SELECT FROM analytics.chat_message_embeddings_1024 AS b
                      WHERE b.model_id = %(model)s AND b.message_id = s.message_id)
) AS complete

-- stop_serving: before another model takes over
UPDATE analytics.embedding_models SET state = 'retired' WHERE state = 'serving'

-- serve: a model serves from now on
UPDATE analytics.embedding_models SET state = 'serving', serving_since = now() WHERE id = %(model)s

-- retired: models whose vectors are still there
SELECT id FROM analytics.embedding_models
WHERE state = 'retired'
  AND to_regclass('analytics.chat_message_embeddings_1024_m' || id) IS NOT NULL

-- similar: the nearest texts of a role; {vector} and {embedding} as the model's index has them
WITH nearest AS MATERIALIZED (
    SELECT message_id, {embedding} <=> {vector} AS distance
    FROM analytics.chat_message_embeddings_1024
    WHERE model_id = {model} AND indexed
    ORDER BY {embedding} <=> {vector}
    LIMIT {reach}
), texts AS (
    SELECT DISTINCT ON (m.content_key) m.id, m.content, m.role, m.content_key, n.distance
    FROM nearest AS n JOIN analytics.chat_messages AS m ON m.id = n.message_id
    WHERE m.role = {role}
    ORDER BY m.content_key, n.distance
)
SELECT t.id, t.content, 1 - t.distance AS similarity, g.id AS group_id, g.label
FROM texts AS t
LEFT JOIN analytics.question_texts AS q ON q.role = t.role AND q.content_key = t.content_key
LEFT JOIN analytics.question_groups AS g ON g.id = q.group_id
ORDER BY t.distance, t.id
LIMIT {number}

-- clustering: how a role's texts were last grouped from scratch
SELECT model_id, method, distance, means, texts, made_at FROM analytics.clusterings
WHERE role = %(role)s

-- texts: each different text of a role that has a vector; with only_new, those without a place yet
SELECT min(m.id) AS id, m.content_key::text AS key, count(*) AS messages
FROM analytics.chat_messages AS m
WHERE m.role = %(role)s
  AND EXISTS (SELECT FROM analytics.chat_message_embeddings_1024 AS e
              WHERE e.message_id = m.id AND e.model_id = %(model)s)
  AND NOT (%(only_new)s AND EXISTS (SELECT FROM analytics.question_texts AS t
                                    WHERE t.role = m.role AND t.content_key = m.content_key))
GROUP BY m.content_key
ORDER BY 1

-- number_of_texts: how many different texts of a role have a place
SELECT count(*) AS texts FROM analytics.question_texts WHERE role = %(role)s

-- recent_noise: texts that belonged nowhere, the latest first
SELECT min(m.id) AS id, m.content_key::text AS key, count(*) AS messages
FROM analytics.question_texts AS t
JOIN analytics.chat_messages AS m ON m.role = t.role AND m.content_key = t.content_key
WHERE t.role = %(role)s AND t.group_id IS NULL
  AND EXISTS (SELECT FROM analytics.chat_message_embeddings_1024 AS e
              WHERE e.message_id = m.id AND e.model_id = %(model)s)
GROUP BY m.content_key
ORDER BY 1 DESC
LIMIT %(number)s

-- contents: what messages say
SELECT id, content FROM analytics.chat_messages WHERE id = ANY (%(messages)s)

-- vectors: of messages, by id, as rows.py reads them
COPY (
    SELECT e.message_id, e.embedding
    FROM analytics.chat_message_embeddings_1024 AS e JOIN wanted AS w ON w.message_id = e.message_id
    WHERE e.model_id = {model}
    ORDER BY e.message_id
) TO STDOUT (FORMAT binary)

-- present_groups: those that go on
SELECT id, mean, texts, representative, label FROM analytics.question_groups
WHERE role = %(role)s AND mean IS NOT NULL ORDER BY id

-- places: where each text of a role was
SELECT content_key::text AS key, group_id FROM analytics.question_texts
WHERE role = %(role)s AND group_id IS NOT NULL

-- add_group: a new one, returning its id
INSERT INTO analytics.question_groups
    (role, mean, label, keywords, representative, representative_id, texts)
VALUES (%(role)s, %(mean)s, %(label)s, %(keywords)s, %(representative)s, %(representative_id)s,
        %(texts)s)
RETURNING id

-- change_group: one that goes on
UPDATE analytics.question_groups SET mean = %(mean)s, label = %(label)s, keywords = %(keywords)s,
    representative = %(representative)s, representative_id = %(representative_id)s,
    texts = %(texts)s, updated_at = now()
WHERE id = %(id)s

-- grow_group: one that has more texts now, its words unchanged
UPDATE analytics.question_groups SET mean = %(mean)s, texts = %(texts)s, updated_at = now()
WHERE id = %(id)s

-- end_groups: those of a role that did not go on
UPDATE analytics.question_groups SET mean = NULL, updated_at = now()
WHERE role = %(role)s AND mean IS NOT NULL AND id <> ALL (%(kept)s)

-- forget_places: before all are written anew
DELETE FROM analytics.question_texts WHERE role = %(role)s

-- forget_noise: texts that have found a place after all
DELETE FROM analytics.question_texts
WHERE role = %(role)s AND content_key = ANY (%(keys)s::uuid[]) AND group_id IS NULL

-- note_places: where texts belong
COPY analytics.question_texts (role, content_key, group_id, similarity) FROM STDIN

-- remember_clustering: how it was done
INSERT INTO analytics.clusterings (role, model_id, method, distance, means, texts)
VALUES (%(role)s, %(model)s, %(method)s, %(distance)s, %(means)s, %(texts)s)
ON CONFLICT (role) DO UPDATE SET model_id = excluded.model_id, method = excluded.method,
    distance = excluded.distance, means = excluded.means, texts = excluded.texts, made_at = now()

-- count_days: how many messages each group has had each day
WITH counted AS (
    SELECT t.group_id, (m.created_at AT TIME ZONE %(zone)s)::date AS day, count(*) AS messages,
        min(m.created_at) AS first_at, max(m.created_at) AS last_at
    FROM analytics.question_texts AS t
    JOIN analytics.chat_messages AS m ON m.role = t.role AND m.content_key = t.content_key
    WHERE t.role = %(role)s AND t.group_id IS NOT NULL
    GROUP BY 1, 2
), written AS (
    MERGE INTO analytics.question_group_days AS d
    USING (
        SELECT c.group_id, c.day, c.messages FROM counted AS c
        UNION ALL
        -- Days that a group has lost, by a message deleted or a text moved.
        SELECT o.group_id, o.day, NULL
        FROM analytics.question_group_days AS o
        JOIN analytics.question_groups AS g ON g.id = o.group_id AND g.role = %(role)s
            AND g.mean IS NOT NULL
        WHERE NOT EXISTS (SELECT FROM counted AS c WHERE c.group_id = o.group_id AND c.day = o.day)
    ) AS s ON d.group_id = s.group_id AND d.day = s.day
    WHEN MATCHED AND s.messages IS NULL THEN DELETE
    WHEN MATCHED AND d.messages <> s.messages THEN UPDATE SET messages = s.messages
    WHEN NOT MATCHED AND s.messages IS NOT NULL THEN
        INSERT (group_id, day, messages) VALUES (s.group_id, s.day, s.messages)
)
UPDATE analytics.question_groups AS g
SET messages = s.messages, first_seen_at = s.first_at, last_seen_at = s.last_at
FROM (SELECT group_id, sum(messages) AS messages, min(first_at) AS first_at, max(last_at) AS last_at
      FROM counted GROUP BY group_id) AS s
WHERE g.id = s.group_id
  AND (g.messages, g.first_seen_at, g.last_seen_at)
      IS DISTINCT FROM (s.messages, s.first_at, s.last_at)

-- daily: the counts of present groups up to a day
SELECT d.group_id, d.day, d.messages
FROM analytics.question_group_days AS d
JOIN analytics.question_groups AS g ON g.id = d.group_id
WHERE g.role = %(role)s AND g.mean IS NOT NULL AND d.day <= %(day)s
ORDER BY d.group_id, d.day

-- described: what is shown of groups
SELECT g.id, g.label, g.keywords, g.representative, g.texts, g.messages, g.first_seen_at,
    g.last_seen_at
FROM analytics.question_groups AS g WHERE g.id = ANY (%(groups)s)

-- examples: some texts of each group, those nearest to its middle
SELECT t.group_id, m.content
FROM unnest(%(groups)s::bigint[]) AS g (id)
CROSS JOIN LATERAL (
    SELECT group_id, content_key FROM analytics.question_texts
    WHERE group_id = g.id ORDER BY similarity DESC, content_key LIMIT %(number)s
) AS t
CROSS JOIN LATERAL (
    SELECT content FROM analytics.chat_messages
    WHERE role = %(role)s AND content_key = t.content_key ORDER BY id LIMIT 1
) AS m

-- totals: messages of a role up to a day, and where they belong, as of the last count of the days
SELECT said.messages, grouped.messages AS grouped, noise.messages AS noise,
    greatest(0, said.messages - grouped.messages - noise.messages) AS not_classified
FROM (
    SELECT count(*) AS messages FROM analytics.chat_messages
    WHERE role = %(role)s AND created_at < ((%(day)s::date + 1)::timestamp AT TIME ZONE %(zone)s)
) AS said, (
    SELECT coalesce(sum(d.messages), 0)::bigint AS messages
    FROM analytics.question_group_days AS d
    JOIN analytics.question_groups AS g ON g.id = d.group_id
    WHERE g.role = %(role)s AND g.mean IS NOT NULL AND d.day <= %(day)s
) AS grouped, (
    SELECT count(*) AS messages
    FROM analytics.question_texts AS t
    JOIN analytics.chat_messages AS m ON m.role = t.role AND m.content_key = t.content_key
    WHERE t.role = %(role)s AND t.group_id IS NULL
      AND m.created_at < ((%(day)s::date + 1)::timestamp AT TIME ZONE %(zone)s)
) AS noise

-- today: the date in a zone
SELECT (now() AT TIME ZONE %(zone)s)::date AS day

-- keep_payload: what a front end is given
INSERT INTO analytics.cached_payloads (name, etag, body, expires_at)
VALUES (%(name)s, %(etag)s, %(body)s, now() + make_interval(secs => %(seconds)s))
ON CONFLICT (name) DO UPDATE
SET etag = excluded.etag, body = excluded.body, made_at = now(), expires_at = excluded.expires_at

-- payload: by name, whether or not its time is over
SELECT etag, body, made_at, expires_at <= now() AS expired FROM analytics.cached_payloads
WHERE name = %(name)s

-- drop_payloads: those whose time is over
DELETE FROM analytics.cached_payloads WHERE expires_at <= now() RETURNING name

-- payload_names: all that are kept
SELECT name FROM analytics.cached_payloads

-- note_warm: this process holds model and index
INSERT INTO analytics.warm_processes (process, pid, model, seconds)
VALUES (%(process)s, %(pid)s, %(model)s, %(seconds)s)
ON CONFLICT (process) DO UPDATE
SET pid = excluded.pid, model = excluded.model, seconds = excluded.seconds, warmed_at = now()

-- forget_warm: processes that said so long ago, and are not there any more
DELETE FROM analytics.warm_processes WHERE warmed_at < now() - interval '2 days'

-- preloaded_lately: whether a preload was asked for within the last day
SELECT EXISTS (SELECT FROM analytics.warm_processes WHERE warmed_at > now() - interval '25 hours')
    AS lately

-- import: messages that were not imported before
WITH added AS (
    INSERT INTO analytics.chat_messages (external_id, chat_id, role, content, created_at)
    SELECT external_id, chat_id, role, content, created_at FROM incoming
    ON CONFLICT (external_id) DO NOTHING
    RETURNING 1
)
SELECT (SELECT count(*) FROM incoming) AS read, (SELECT count(*) FROM added) AS added

-- one_group: a group with its days
SELECT g.id, g.label, g.keywords, g.representative, g.texts, g.messages, g.first_seen_at,
    g.last_seen_at, g.mean IS NOT NULL AS present
FROM analytics.question_groups AS g WHERE g.id = %(group)s

-- members: texts of a group with how often each was asked
SELECT min(m.content) AS text, count(*) AS messages, t.similarity, max(m.created_at) AS last_seen_at
FROM analytics.question_texts AS t
JOIN analytics.chat_messages AS m ON m.role = t.role AND m.content_key = t.content_key
WHERE t.group_id = %(group)s
GROUP BY t.content_key, t.similarity
ORDER BY count(*) DESC, t.similarity DESC
LIMIT %(number)s

-- days_of_group: how many messages a group has had each day
SELECT day, messages FROM analytics.question_group_days WHERE group_id = %(group)s ORDER BY day
