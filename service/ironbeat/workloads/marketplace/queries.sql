-- The marketplace's housekeeping. Each query does one batch in one statement and says how many rows
-- it `picked` (was due, not locked by someone else) and how many it changed. Batches go along an
-- index: `after_time` and `after_id` are where the last one ended, so that a run never walks over
-- the index entries that its own earlier batches have just made obsolete.
--
-- SKIP LOCKED: a row that somebody is writing at this moment is left to them and to the next run.
-- Under READ COMMITTED a row that changed before it was locked is judged anew by its latest values.

-- try_exclusive: whether this transaction is the only one at this job
SELECT pg_try_advisory_xact_lock(hashtextextended(%(job)s, 0)) AS alone

-- assign_customers: waiting customers, in order of arrival, to the least busy agents with a free place
WITH waiting AS MATERIALIZED (
    SELECT q.id, q.customer_id, q.queued_at
    FROM marketplace.customer_queue AS q
    -- A call back may have been promised for later.
    WHERE q.status = 'waiting' AND q.queued_at <= now()
      -- Who is being served already is served first to the end.
      AND NOT EXISTS (SELECT FROM marketplace.chats AS c WHERE c.customer_id = q.customer_id
                      AND c.status = 'open' AND c.agent_id IS NOT NULL)
    ORDER BY q.queued_at, q.id
    LIMIT %(batch)s
    FOR UPDATE OF q SKIP LOCKED
), free AS MATERIALIZED (
    SELECT a.id, a.active_chats, a.capacity, a.last_assigned_at
    FROM marketplace.agents AS a
    WHERE a.status = 'online' AND a.active_chats < a.capacity
    ORDER BY a.active_chats, a.last_assigned_at NULLS FIRST, a.id
    LIMIT (SELECT count(*) FROM waiting)
    FOR NO KEY UPDATE SKIP LOCKED
), places AS (
    -- One row a free place; an agent's second place comes after everybody's first.
    SELECT f.id AS agent_id,
        row_number() OVER (ORDER BY f.active_chats + n, f.last_assigned_at NULLS FIRST, f.id) AS turn
    FROM free AS f CROSS JOIN LATERAL generate_series(1, f.capacity - f.active_chats) AS n
), line AS (
    SELECT w.id, w.customer_id, row_number() OVER (ORDER BY w.queued_at, w.id) AS turn
    FROM waiting AS w
), opened AS (
    INSERT INTO marketplace.chats (customer_id, agent_id, queue_entry_id)
    SELECT line.customer_id, places.agent_id, line.id
    FROM line JOIN places USING (turn)
    ORDER BY turn
    ON CONFLICT DO NOTHING
    RETURNING queue_entry_id
), assigned AS (
    UPDATE marketplace.customer_queue SET status = 'assigned', assigned_at = now()
    -- As an array: of a join, the planner would expect millions of rows and read the whole table.
    WHERE id = ANY (ARRAY(SELECT queue_entry_id FROM opened))
    RETURNING 1
)
SELECT (SELECT count(*) FROM waiting) AS picked, (SELECT count(*) FROM assigned) AS assigned

-- end_chats: open chats whose idle limit is over
WITH due AS MATERIALIZED (
    SELECT id, times_out_at AS due_at
    FROM marketplace.chats
    WHERE status = 'open' AND times_out_at <= now()
      AND (times_out_at, id) > (%(after_time)s::timestamptz, %(after_id)s)
    ORDER BY times_out_at, id
    LIMIT %(batch)s
    FOR NO KEY UPDATE SKIP LOCKED
), ended AS (
    UPDATE marketplace.chats AS c SET status = 'ended', ended_at = now(), end_reason = 'timeout'
    FROM due WHERE c.id = due.id
    RETURNING 1
)
SELECT count(*) AS picked, (SELECT count(*) FROM ended) AS ended,
    (array_agg(due_at ORDER BY due_at DESC, id DESC))[1]::text AS after_time,
    (array_agg(id ORDER BY due_at DESC, id DESC))[1] AS after_id
FROM due

-- warn_chats: both sides of open chats that will end soon; once for each idle period
WITH due AS MATERIALIZED (
    SELECT id, warns_at AS due_at, last_activity_at, times_out_at, customer_id, agent_id, expert_id
    FROM marketplace.chats
    WHERE status = 'open' AND warned_for IS DISTINCT FROM last_activity_at
      AND warns_at <= now() AND times_out_at > now()
      AND (warns_at, id) > (%(after_time)s::timestamptz, %(after_id)s)
    ORDER BY warns_at, id
    LIMIT %(batch)s
    FOR NO KEY UPDATE SKIP LOCKED
), warned AS (
    UPDATE marketplace.chats AS c SET warned_for = c.last_activity_at
    FROM due WHERE c.id = due.id
    RETURNING 1
), sides AS (
    SELECT id, last_activity_at, times_out_at, customer_id AS user_id, NULL::bigint AS agent_id
    FROM due
    UNION ALL
    SELECT due.id, due.last_activity_at, due.times_out_at, e.user_id, due.agent_id
    FROM due LEFT JOIN marketplace.task_experts AS e ON e.id = due.expert_id
), sent AS (
    INSERT INTO marketplace.notifications (kind, user_id, agent_id, chat_id, occasion, body)
    SELECT 'chat_timeout_warning', user_id, agent_id, id, last_activity_at,
        'This chat ends at '
        || to_char(times_out_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
        || ' unless one of you writes before that.'
    FROM sides
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*) AS picked, (SELECT count(*) FROM warned) AS warned,
    (SELECT count(*) FROM sent) AS notifications,
    (array_agg(due_at ORDER BY due_at DESC, id DESC))[1]::text AS after_time,
    (array_agg(id ORDER BY due_at DESC, id DESC))[1] AS after_id
FROM due

-- cancel_tasks: tasks that nobody took before their deadline
WITH due AS MATERIALIZED (
    SELECT id, deadline_at AS due_at
    FROM marketplace.tasks
    WHERE status = 'open' AND deadline_at <= now()
      AND (deadline_at, id) > (%(after_time)s::timestamptz, %(after_id)s)
    ORDER BY deadline_at, id
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), cancelled AS (
    UPDATE marketplace.tasks AS t
    SET status = 'cancelled', cancelled_at = now(), cancel_reason = 'deadline'
    FROM due WHERE t.id = due.id
    RETURNING 1
)
SELECT count(*) AS picked, (SELECT count(*) FROM cancelled) AS cancelled,
    (array_agg(due_at ORDER BY due_at DESC, id DESC))[1]::text AS after_time,
    (array_agg(id ORDER BY due_at DESC, id DESC))[1] AS after_id
FROM due

-- expire_coupons: unused coupons whose time is over
WITH due AS MATERIALIZED (
    SELECT id, expires_at AS due_at
    FROM marketplace.coupons
    WHERE status = 'active' AND expires_at <= now()
      AND (expires_at, id) > (%(after_time)s::timestamptz, %(after_id)s)
    ORDER BY expires_at, id
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), expired AS (
    UPDATE marketplace.coupons AS c SET status = 'expired', expired_at = now()
    FROM due WHERE c.id = due.id
    RETURNING 1
)
SELECT count(*) AS picked, (SELECT count(*) FROM expired) AS expired,
    (array_agg(due_at ORDER BY due_at DESC, id DESC))[1]::text AS after_time,
    (array_agg(id ORDER BY due_at DESC, id DESC))[1] AS after_id
FROM due

-- expire_invitation_codes: codes that could still be used and whose time is over
WITH due AS MATERIALIZED (
    SELECT id, expires_at AS due_at
    FROM marketplace.invitation_codes
    WHERE status = 'active' AND expires_at <= now()
      AND (expires_at, id) > (%(after_time)s::timestamptz, %(after_id)s)
    ORDER BY expires_at, id
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), expired AS (
    UPDATE marketplace.invitation_codes AS c SET status = 'expired', expired_at = now()
    FROM due WHERE c.id = due.id
    RETURNING 1
)
SELECT count(*) AS picked, (SELECT count(*) FROM expired) AS expired,
    (array_agg(due_at ORDER BY due_at DESC, id DESC))[1]::text AS after_time,
    (array_agg(id ORDER BY due_at DESC, id DESC))[1] AS after_id
FROM due

-- expire_points: what remains of lots whose time is over, as ledger entries; the ledger's trigger
-- takes them from lot and balance. Nothing is waited for here, so the order of locks is free.
WITH due AS MATERIALIZED (
    SELECT l.id, l.user_id, l.remaining, l.expires_at AS due_at
    FROM marketplace.points_lots AS l
    JOIN marketplace.points_accounts AS a ON a.user_id = l.user_id
    WHERE l.remaining > 0 AND l.expires_at <= now()
      AND (l.expires_at, l.id) > (%(after_time)s::timestamptz, %(after_id)s)
    ORDER BY l.expires_at, l.id
    LIMIT %(batch)s
    FOR NO KEY UPDATE OF a, l SKIP LOCKED
), entries AS (
    INSERT INTO marketplace.points_ledger (user_id, lot_id, kind, amount)
    SELECT user_id, id, 'expire', -remaining FROM due
    RETURNING amount
)
SELECT count(*) AS picked, (SELECT count(*) FROM entries) AS lots,
    (SELECT coalesce(-sum(amount), 0) FROM entries) AS points,
    (array_agg(due_at ORDER BY due_at DESC, id DESC))[1]::text AS after_time,
    (array_agg(id ORDER BY due_at DESC, id DESC))[1] AS after_id
FROM due

-- end_activities: activities that are over, whether or not they were ever started
WITH due AS MATERIALIZED (
    SELECT id, ends_at AS due_at
    FROM marketplace.activities
    WHERE status IN ('planned', 'running') AND ends_at <= now()
      AND (ends_at, id) > (%(after_time)s::timestamptz, %(after_id)s)
    ORDER BY ends_at, id
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), ended AS (
    UPDATE marketplace.activities AS a SET status = 'ended', ended_at = now()
    FROM due WHERE a.id = due.id
    RETURNING 1
)
SELECT count(*) AS picked, (SELECT count(*) FROM ended) AS ended,
    (array_agg(due_at ORDER BY due_at DESC, id DESC))[1]::text AS after_time,
    (array_agg(id ORDER BY due_at DESC, id DESC))[1] AS after_id
FROM due

-- users_range: the next users by id; last_id is NULL when there are no further ones
SELECT count(*) AS users, CASE WHEN count(*) = %(batch)s THEN max(id) END AS last_id
FROM (SELECT id FROM marketplace.users WHERE id > %(after_id)s ORDER BY id LIMIT %(batch)s) AS batch

-- update_user_statistics: figures of the users in (after_id, last_id]; only what changed is written
WITH posted AS (
    SELECT owner_id AS user_id, count(*) AS tasks_posted,
        count(*) FILTER (WHERE status = 'completed') AS tasks_completed,
        count(*) FILTER (WHERE status = 'cancelled') AS tasks_cancelled,
        sum(reward) FILTER (WHERE status = 'completed') AS reward_paid
    FROM marketplace.tasks
    WHERE owner_id > %(after_id)s AND owner_id <= %(last_id)s GROUP BY owner_id
), coupons AS (
    SELECT user_id, count(*) AS coupons_used
    FROM marketplace.coupons
    WHERE user_id > %(after_id)s AND user_id <= %(last_id)s AND status = 'used' GROUP BY user_id
), invited AS (
    SELECT inviter_id AS user_id, sum(uses) AS invitations
    FROM marketplace.invitation_codes
    WHERE inviter_id > %(after_id)s AND inviter_id <= %(last_id)s GROUP BY inviter_id
), points AS (
    SELECT user_id, sum(amount) FILTER (WHERE kind = 'earn') AS points_earned,
        -sum(amount) FILTER (WHERE kind IN ('spend', 'refund')) AS points_spent,
        -sum(amount) FILTER (WHERE kind = 'expire') AS points_expired
    FROM marketplace.points_ledger
    WHERE user_id > %(after_id)s AND user_id <= %(last_id)s GROUP BY user_id
), held AS (
    SELECT customer_id AS user_id, count(*) AS chats, max(last_activity_at) AS last_chat_at
    FROM marketplace.chats
    WHERE customer_id > %(after_id)s AND customer_id <= %(last_id)s GROUP BY customer_id
), figures AS (
    SELECT u.id AS user_id,
        coalesce(posted.tasks_posted, 0) AS tasks_posted,
        coalesce(posted.tasks_completed, 0) AS tasks_completed,
        coalesce(posted.tasks_cancelled, 0) AS tasks_cancelled,
        coalesce(posted.reward_paid, 0) AS reward_paid,
        coalesce(coupons.coupons_used, 0) AS coupons_used,
        coalesce(invited.invitations, 0) AS invitations,
        coalesce(points.points_earned, 0) AS points_earned,
        coalesce(points.points_spent, 0) AS points_spent,
        coalesce(points.points_expired, 0) AS points_expired,
        coalesce(held.chats, 0) AS chats,
        held.last_chat_at
    FROM marketplace.users AS u
    LEFT JOIN posted ON posted.user_id = u.id
    LEFT JOIN coupons ON coupons.user_id = u.id
    LEFT JOIN invited ON invited.user_id = u.id
    LEFT JOIN points ON points.user_id = u.id
    LEFT JOIN held ON held.user_id = u.id
    WHERE u.id > %(after_id)s AND u.id <= %(last_id)s
)
MERGE INTO marketplace.user_statistics AS s USING figures AS f
ON s.user_id = f.user_id AND s.user_id > %(after_id)s AND s.user_id <= %(last_id)s
WHEN MATCHED AND
    (s.tasks_posted, s.tasks_completed, s.tasks_cancelled, s.reward_paid, s.coupons_used,
     s.invitations, s.points_earned, s.points_spent, s.points_expired, s.chats, s.last_chat_at)
    IS DISTINCT FROM
    (f.tasks_posted, f.tasks_completed, f.tasks_cancelled, f.reward_paid, f.coupons_used,
     f.invitations, f.points_earned, f.points_spent, f.points_expired, f.chats, f.last_chat_at)
THEN UPDATE SET
    tasks_posted = f.tasks_posted, tasks_completed = f.tasks_completed,
    tasks_cancelled = f.tasks_cancelled, reward_paid = f.reward_paid,
    coupons_used = f.coupons_used, invitations = f.invitations, points_earned = f.points_earned,
    points_spent = f.points_spent, points_expired = f.points_expired, chats = f.chats,
    last_chat_at = f.last_chat_at, changed_at = now()
WHEN NOT MATCHED THEN INSERT VALUES (f.user_id, f.tasks_posted, f.tasks_completed,
    f.tasks_cancelled, f.reward_paid, f.coupons_used, f.invitations, f.points_earned,
    f.points_spent, f.points_expired, f.chats, f.last_chat_at, now())

-- forget_user_statistics: of users in (after_id, last_id] who are gone
DELETE FROM marketplace.user_statistics AS s
WHERE s.user_id > %(after_id)s AND s.user_id <= %(last_id)s
  AND NOT EXISTS (SELECT FROM marketplace.users AS u WHERE u.id = s.user_id)

-- remove_chats: chats without activity for so long, with their messages and notifications
WITH due AS MATERIALIZED (
    SELECT id, last_activity_at AS due_at
    FROM marketplace.chats
    WHERE last_activity_at <= now() - make_interval(days => %(inactive_days)s)
      -- A chat that may rest for longer than that is not over yet.
      AND (status = 'ended' OR times_out_at <= now())
      AND (last_activity_at, id) > (%(after_time)s::timestamptz, %(after_id)s)
    ORDER BY last_activity_at, id
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), messages AS (
    DELETE FROM marketplace.chat_messages AS m USING due WHERE m.chat_id = due.id
    RETURNING 1
), chats AS (
    DELETE FROM marketplace.chats AS c USING due WHERE c.id = due.id
    RETURNING 1
)
SELECT count(*) AS picked, (SELECT count(*) FROM chats) AS chats,
    (SELECT count(*) FROM messages) AS messages,
    (array_agg(due_at ORDER BY due_at DESC, id DESC))[1]::text AS after_time,
    (array_agg(id ORDER BY due_at DESC, id DESC))[1] AS after_id
FROM due

-- update_response_times: of featured experts, from the messages of their chats. An answer is an
-- expert's first message after one or more of the customer's; it took as long as the customer had
-- been waiting since the first of these.
WITH experts AS MATERIALIZED (
    SELECT id FROM marketplace.task_experts
    WHERE featured AND id > %(after_id)s
    ORDER BY id
    LIMIT %(batch)s
    FOR NO KEY UPDATE SKIP LOCKED
), messages AS (
    SELECT c.expert_id, m.chat_id, m.id, m.sender, m.sent_at,
        lag(m.sender) OVER (PARTITION BY m.chat_id ORDER BY m.sent_at, m.id) AS previous
    FROM experts
    JOIN marketplace.chats AS c ON c.expert_id = experts.id
    JOIN marketplace.chat_messages AS m ON m.chat_id = c.id
    WHERE m.sender IN ('customer', 'expert')
), turns AS (
    SELECT expert_id, sender,
        sent_at - lag(sent_at) OVER (PARTITION BY chat_id ORDER BY sent_at, id) AS waited
    FROM messages WHERE sender IS DISTINCT FROM previous
), figures AS (
    SELECT expert_id, count(*) AS responses,
        round(avg(extract(epoch FROM waited)))::integer AS average,
        round(percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM waited)))::integer
            AS median
    FROM turns WHERE sender = 'expert' AND waited IS NOT NULL
    GROUP BY expert_id
), updated AS (
    UPDATE marketplace.task_experts AS e
    SET average_response_seconds = f.average, median_response_seconds = f.median,
        responses_counted = coalesce(f.responses, 0), response_time_updated_at = now()
    FROM experts LEFT JOIN figures AS f ON f.expert_id = experts.id
    WHERE e.id = experts.id
      AND (e.average_response_seconds, e.median_response_seconds, e.responses_counted)
          IS DISTINCT FROM (f.average, f.median, coalesce(f.responses, 0))
    RETURNING 1
)
SELECT count(*) AS picked, max(id) AS after_id, count(*) AS experts,
    (SELECT count(*) FROM updated) AS updated,
    (SELECT coalesce(sum(responses), 0)::bigint FROM figures) AS responses
FROM experts
