-- get: what is kept under these keys
SELECT key, value FROM ironbeat.kept
WHERE key = ANY(%(keys)s) AND (expires_at IS NULL OR expires_at > clock_timestamp())

-- set: keep a value, unless it would replace a final one
INSERT INTO ironbeat.kept AS k (key, value, final, expires_at)
VALUES (%(key)s, %(value)s, %(final)s, CASE WHEN %(seconds)s::double precision IS NULL THEN NULL
    ELSE clock_timestamp() + make_interval(secs => %(seconds)s) END)
ON CONFLICT (key) DO UPDATE
SET value = excluded.value, final = excluded.final, expires_at = excluded.expires_at
WHERE NOT k.final OR k.expires_at <= clock_timestamp()

-- delete: forget a key
DELETE FROM ironbeat.kept WHERE key = %(key)s

-- take: some of what is kept, for somebody who puts it elsewhere in this transaction
DELETE FROM ironbeat.kept k USING (
    SELECT key FROM ironbeat.kept LIMIT %(limit)s FOR UPDATE SKIP LOCKED) AS taken
WHERE k.key = taken.key
RETURNING k.key, k.value, extract(epoch FROM k.expires_at - clock_timestamp())::double precision

-- chord_size: how many parts a chord has; a chord that has ended begins anew
INSERT INTO ironbeat.chords AS c (id, size) VALUES (%(chord)s, %(size)s)
ON CONFLICT (id) DO UPDATE SET size = excluded.size, ended_at = NULL,
    added = CASE WHEN c.ended_at IS NULL THEN c.added ELSE 0 END,
    done = CASE WHEN c.ended_at IS NULL THEN c.done
           ELSE (SELECT count(*) FROM ironbeat.chord_parts p WHERE p.chord_id = c.id) END

-- chord_add: a part of a chord adds another one
INSERT INTO ironbeat.chords AS c (id, added) VALUES (%(chord)s, 1)
ON CONFLICT (id) DO UPDATE SET added = c.added + 1

-- chord_structure: how the results of a chord's parts are nested
INSERT INTO ironbeat.chords (id, structure) VALUES (%(chord)s, %(structure)s)
ON CONFLICT (id) DO UPDATE SET structure = excluded.structure

-- chord_part: a part has ended; it is counted once, and the count is locked until the commit
WITH part AS (
    INSERT INTO ironbeat.chord_parts (chord_id, run_id, place, state, result)
    VALUES (%(chord)s, %(run)s, %(place)s, %(state)s, %(result)s)
    ON CONFLICT (chord_id, run_id) DO NOTHING RETURNING 1
)
INSERT INTO ironbeat.chords AS c (id, done) SELECT %(chord)s, count(*) FROM part
ON CONFLICT (id) DO UPDATE SET done = c.done + CASE WHEN c.ended_at IS NULL THEN excluded.done
                                                    ELSE 0 END
RETURNING c.size IS NOT NULL AND c.ended_at IS NULL AND c.done >= c.size + c.added, c.structure

-- chord_parts: the parts of a chord in their order
SELECT run_id, state, result FROM ironbeat.chord_parts
WHERE chord_id = %(chord)s ORDER BY place NULLS LAST, run_id

-- chord_end: the chord's body is committed, or has failed; the parts are not needed any more
WITH gone AS (DELETE FROM ironbeat.chord_parts WHERE chord_id = %(chord)s)
UPDATE ironbeat.chords SET ended_at = clock_timestamp(), structure = NULL WHERE id = %(chord)s

-- prune_kept: results whose time is over
DELETE FROM ironbeat.kept WHERE expires_at < clock_timestamp()

-- prune_chords: chords that ended, or that began so long ago that nobody waits for them
WITH old AS (
    DELETE FROM ironbeat.chords
    WHERE created_at < clock_timestamp() - make_interval(days => %(days)s)
        OR ended_at < clock_timestamp() - interval '1 day'
    RETURNING id
)
DELETE FROM ironbeat.chord_parts p USING old WHERE p.chord_id = old.id
