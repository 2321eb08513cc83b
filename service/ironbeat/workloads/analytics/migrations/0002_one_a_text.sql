-- Equal texts have equal vectors. The index holds one of each: no more is found through it by the
-- others, which cost half of its growth, and pushed other texts out of what a search reaches.
ALTER TABLE analytics.chat_message_embeddings_1024 ADD COLUMN indexed boolean NOT NULL DEFAULT true;

UPDATE analytics.chat_message_embeddings_1024 AS e SET indexed = false
FROM (
    SELECT e.model_id, m.id,
        row_number() OVER (PARTITION BY e.model_id, m.role, m.content_key ORDER BY m.id) AS place
    FROM analytics.chat_message_embeddings_1024 AS e
    JOIN analytics.chat_messages AS m ON m.id = e.message_id
) AS s
WHERE e.model_id = s.model_id AND e.message_id = s.id AND s.place > 1;

-- The indexes of all vectors; the next rebuild makes those of one a text.
DO $$
DECLARE name text;
BEGIN
    FOR name IN
        SELECT format('analytics.%I', indexname) FROM pg_indexes
        WHERE schemaname = 'analytics' AND indexname LIKE 'chat\_message\_embeddings\_1024\_m%\_hnsw'
    LOOP
        EXECUTE 'DROP INDEX ' || name;
    END LOOP;
END $$;

-- When the message whose vector is in the index goes, or says something else, another one of the
-- same text takes its place.
CREATE FUNCTION analytics.keep_texts_indexed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE analytics.chat_message_embeddings_1024 AS e SET indexed = true
    FROM (
        SELECT v.model_id, min(v.message_id) AS message_id
        FROM (SELECT DISTINCT role, content_key FROM old_rows) AS o
        JOIN analytics.chat_messages AS m USING (role, content_key)
        JOIN analytics.chat_message_embeddings_1024 AS v ON v.message_id = m.id
        -- A vector that waits to be made anew may be another text's.
        WHERE NOT EXISTS (SELECT FROM analytics.pending_embeddings AS p
                          WHERE p.message_id = v.message_id AND p.model_id = v.model_id)
        GROUP BY v.model_id, m.role, m.content_key
        HAVING NOT bool_or(v.indexed)
    ) AS s
    WHERE e.model_id = s.model_id AND e.message_id = s.message_id;
    RETURN NULL;
END $$;
CREATE TRIGGER chat_messages_keep_texts_indexed_deleted AFTER DELETE ON analytics.chat_messages
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION analytics.keep_texts_indexed();
-- After the trigger that enqueues what has changed: triggers go by their names.
CREATE TRIGGER chat_messages_keep_texts_indexed_updated AFTER UPDATE ON analytics.chat_messages
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION analytics.keep_texts_indexed();
