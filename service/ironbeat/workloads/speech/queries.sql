-- What the workload reads and writes.

-- practice: a practice record with its exercise, both recordings whole
SELECT p.id, p.learner, e.text, e.language, e.sounds, a.content, r.content AS reference
FROM speech.practice_records AS p
JOIN speech.exercises AS e ON e.id = p.exercise_id
JOIN speech.audio AS a ON a.id = p.audio_id
LEFT JOIN speech.audio AS r ON r.id = e.reference_id
WHERE p.id = %(id)s

-- exists: whether there is such a practice record
SELECT EXISTS (SELECT FROM speech.practice_records WHERE id = %(id)s) AS found

-- store: an analysis, in place of an earlier one of the same version and type
INSERT INTO speech.analyses (practice_record_id, model_version, analysis_type, status,
    overall_score, pronunciation, fluency, pitch, voice_quality, confidence, reason_code, reason,
    details, picture, engine)
VALUES (%(practice_record_id)s, %(model_version)s, %(analysis_type)s, %(status)s,
    %(overall_score)s, %(pronunciation)s, %(fluency)s, %(pitch)s, %(voice_quality)s,
    %(confidence)s, %(reason_code)s, %(reason)s, %(details)s, %(picture)s, %(engine)s)
ON CONFLICT (practice_record_id, model_version, analysis_type) DO UPDATE SET
    (status, overall_score, pronunciation, fluency, pitch, voice_quality, confidence, reason_code,
     reason, details, picture, engine, analyzed_at) =
    (excluded.status, excluded.overall_score, excluded.pronunciation, excluded.fluency,
     excluded.pitch, excluded.voice_quality, excluded.confidence, excluded.reason_code,
     excluded.reason, excluded.details, excluded.picture, excluded.engine, now())
RETURNING id

-- pending: practice records that nobody has analysed, the oldest first
SELECT p.id
FROM speech.practice_records AS p
-- Who uploads usually asks at once; this is for what was left.
WHERE p.recorded_at < now() - make_interval(secs => %(older_than_seconds)s)
  AND NOT EXISTS (SELECT FROM speech.analyses AS a WHERE a.practice_record_id = p.id)
ORDER BY p.recorded_at, p.id
LIMIT %(batch)s

-- cleanup: old analyses, but of each recording the last one
DELETE FROM speech.analyses
WHERE id IN (
    SELECT a.id
    FROM speech.analyses AS a
    WHERE a.analyzed_at < now() - make_interval(days => %(days)s)
      AND EXISTS (SELECT FROM speech.analyses AS later
                  WHERE later.practice_record_id = a.practice_record_id
                    AND (later.analyzed_at, later.id) > (a.analyzed_at, a.id))
    ORDER BY a.analyzed_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED)

-- orphans: recordings that no exercise and no practice record has any more
DELETE FROM speech.audio
WHERE id IN (
    SELECT a.id
    FROM speech.audio AS a
    -- One that is being added stands here a moment before its practice record does.
    WHERE a.created_at < now() - interval '1 day'
      AND NOT EXISTS (SELECT FROM speech.practice_records AS p WHERE p.audio_id = a.id)
      AND NOT EXISTS (SELECT FROM speech.exercises AS e WHERE e.reference_id = a.id)
    ORDER BY a.id
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED)

-- figures: how much there is, and how the last day went
SELECT
    (SELECT count(*) FROM speech.exercises) AS exercises,
    (SELECT count(*) FROM speech.practice_records) AS practice_records,
    count(*) FILTER (WHERE status = 'completed') AS completed,
    count(*) FILTER (WHERE status = 'rejected') AS rejected
FROM speech.analyses
WHERE analyzed_at > now() - interval '1 day'

-- latest: the last analysis of a practice record
SELECT id, practice_record_id, model_version, analysis_type, status, overall_score, pronunciation,
    fluency, pitch, voice_quality, confidence, reason_code, reason, details, engine, analyzed_at
FROM speech.analyses
WHERE practice_record_id = %(id)s
ORDER BY analyzed_at DESC, id DESC
LIMIT 1

-- picture: the picture of the last analysis of a practice record that has one
SELECT picture
FROM speech.analyses
WHERE practice_record_id = %(id)s AND picture IS NOT NULL
ORDER BY analyzed_at DESC, id DESC
LIMIT 1

-- add_audio: a file
INSERT INTO speech.audio (content) VALUES (%(content)s) RETURNING id

-- add_exercise: what is to be said, and how it sounds
INSERT INTO speech.exercises (text, language, sounds, reference_id)
VALUES (%(text)s, %(language)s, %(sounds)s, %(reference_id)s)
RETURNING id

-- add_practice: what somebody recorded for an exercise; nothing where the exercise does not exist
INSERT INTO speech.practice_records (exercise_id, learner, audio_id, sample)
SELECT e.id, %(learner)s, %(audio_id)s, %(sample)s
FROM speech.exercises AS e WHERE e.id = %(exercise_id)s
RETURNING id

-- present: practice records of samples, and all of them
SELECT count(*) FILTER (WHERE sample) AS sample, count(*) AS practice_records
FROM speech.practice_records
