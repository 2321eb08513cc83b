-- list: dead letters, the latest first; without those that were dealt with unless asked for
SELECT id, task, workload, queue, schedule_name, created_at, ended_at, attempt, crashes, worker,
    reason, error, argsrepr, kwargsrepr, handled, message IS NOT NULL
FROM ironbeat.run_history
WHERE state = 'dead' AND (%(handled)s OR handled IS NULL)
    AND (%(task)s::text IS NULL OR task = %(task)s)
    AND (%(queue)s::text IS NULL OR queue = %(queue)s)
    AND (%(since)s::timestamptz IS NULL OR ended_at >= %(since)s)
    AND (%(before_at)s::timestamptz IS NULL OR (ended_at, id) < (%(before_at)s, %(before_id)s))
ORDER BY ended_at DESC, id DESC LIMIT %(limit)s

-- one: a dead letter, or why it is none
SELECT id, task, workload, queue, schedule_name, created_at, ended_at, attempt, crashes, worker,
    reason, error, argsrepr, kwargsrepr, handled, message IS NOT NULL, state
FROM ironbeat.run_history WHERE id = %(id)s ORDER BY ended_at DESC LIMIT 1

-- handle: an operator deals with it, once
UPDATE ironbeat.run_history SET handled = %(how)s
WHERE id = %(id)s AND state = 'dead' AND handled IS NULL
RETURNING id

-- count: how many nobody has dealt with
SELECT count(*) FROM (
    SELECT FROM ironbeat.run_history WHERE state = 'dead' AND handled IS NULL
    LIMIT %(most)s) AS counted
