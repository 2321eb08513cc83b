-- Sample rows for the users (first, last]. Each is a function of its user's number i, so that the
-- same command makes the same rows; only times count from now. `pick` spreads numbers evenly over
-- [0, 1); `share` is how many of a hundred users have such a row. Of what can fall due, some is due
-- at once, some in the next minutes, and most later.

-- pick: a number in [0, 1) for each i and salt
CREATE FUNCTION pg_temp.pick(i bigint, salt bigint) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN mod((i + salt * 7919) * 2654435761, 4294967296) / 4294967296.0::double precision

-- drop_pick: at the end
DROP FUNCTION pg_temp.pick(bigint, bigint)

-- users: one for each number
INSERT INTO marketplace.users (id, username, status, created_at)
SELECT i, 'sample-' || lpad(i::text, 8, '0'),
    CASE WHEN pg_temp.pick(i, 1) < 0.97 THEN 'active' ELSE 'suspended' END,
    now() - make_interval(hours => (pg_temp.pick(i, 2) * 20000)::integer)
FROM generate_series(%(first)s + 1, %(last)s) AS i

-- agents: of customer service, one for 200 users
INSERT INTO marketplace.agents (name, status, capacity)
SELECT 'Sample agent ' || n, CASE WHEN mod(n, 10) = 9 THEN 'away' ELSE 'online' END, 4 + mod(n, 3)
FROM generate_series((%(first)s + 199) / 200 + 1, (%(last)s + 199) / 200) AS n
RETURNING id

-- task_experts: every 50th user; every fifth of them is featured
INSERT INTO marketplace.task_experts (user_id, featured)
SELECT i, mod(i, 250) = 1
FROM generate_series(%(first)s + 1, %(last)s) AS i
WHERE mod(i, 50) = 1

-- customer_queue: waiting since some minutes or to be called back soon; the others are history
INSERT INTO marketplace.customer_queue (customer_id, status, queued_at, assigned_at)
SELECT i, status, queued_at,
    CASE WHEN status = 'assigned' THEN queued_at + interval '40 seconds' END
FROM generate_series(%(first)s + 1, %(last)s) AS i
CROSS JOIN LATERAL (SELECT
    CASE WHEN mod(i, 4) = 3 THEN 'waiting' WHEN pg_temp.pick(i, 3) < 0.9 THEN 'assigned'
         ELSE 'left' END AS status) AS s
CROSS JOIN LATERAL (SELECT
    CASE WHEN status = 'waiting'
         THEN now() + make_interval(secs => 1800 * (pg_temp.pick(i, 4) - 0.4))
         ELSE now() - make_interval(mins => 60 + (pg_temp.pick(i, 4) * 40000)::integer)
    END AS queued_at) AS q
WHERE mod(i, 100) < %(share)s

-- service_chats: two open ones for each new agent, and ended ones of up to 31 days ago
WITH conversations AS (
    SELECT i, agent_id, true AS open,
        now() - make_interval(secs => 1200 * pg_temp.pick(i, 5)) AS latest
    FROM (SELECT %(first)s + 4 * row_number() OVER (ORDER BY agent_id, n) AS i, agent_id
          FROM unnest(%(new_agents)s::bigint[]) AS agent_id, generate_series(1, 2) AS n) AS fresh
    WHERE i <= %(last)s
    UNION ALL
    SELECT i, (%(agents)s::bigint[])[1 + mod(i, cardinality(%(agents)s::bigint[]))], false,
        now() - make_interval(secs => 3600 + 31 * 86400 * pg_temp.pick(i, 6))
    FROM generate_series(%(first)s + 1, %(last)s) AS i
    WHERE mod(i, 4) = 0 AND mod(i, 100) < %(share)s
), opened AS (
    INSERT INTO marketplace.chats (customer_id, agent_id, status, opened_at, ended_at, end_reason,
        last_activity_at)
    SELECT i, agent_id, CASE WHEN open THEN 'open' ELSE 'ended' END, latest - interval '10 minutes',
        CASE WHEN NOT open THEN latest + interval '5 minutes' END,
        CASE WHEN NOT open THEN 'closed' END, latest
    FROM conversations
    RETURNING id, last_activity_at
), written AS (
    INSERT INTO marketplace.chat_messages (chat_id, sender, body, sent_at)
    SELECT id, sender, body, last_activity_at - before
    FROM opened CROSS JOIN (VALUES
        ('customer', 'Hello, where can I see what I paid for my last task?', interval '9 minutes'),
        ('agent', 'Under "My tasks", on the right. Shall I send you the receipt?', '8 minutes'),
        ('customer', 'Yes, please.', '0')) AS lines (sender, body, before)
    RETURNING 1
)
SELECT (SELECT count(*) FROM opened) AS chats, (SELECT count(*) FROM written) AS chat_messages

-- expert_chats: half of the last day (some idle beyond their limit), half of up to 31 days ago
WITH conversations AS (
    SELECT i, e.id AS expert_id, pg_temp.pick(i, 7) AS pace,
        now() - make_interval(secs => CASE WHEN mod(i, 2) = 0
            THEN 25 * 3600 * pg_temp.pick(i, 8) ELSE 86400 * (2 + 29 * pg_temp.pick(i, 8)) END)
            AS latest
    FROM generate_series(%(first)s + 1, %(last)s) AS i
    JOIN marketplace.task_experts AS e
        ON e.user_id = 1 + 50 * floor(pg_temp.pick(i, 9) * ((%(last)s - 1) / 50 + 1))::bigint
    WHERE mod(i, 4) <> 0 AND mod(i, 50) <> 1 AND mod(i, 100) < %(share)s
), opened AS (
    INSERT INTO marketplace.chats (customer_id, expert_id, status, opened_at, ended_at, end_reason,
        last_activity_at, idle_limit, warn_before)
    SELECT i, expert_id, CASE WHEN latest > now() - interval '25 hours' THEN 'open' ELSE 'ended' END,
        latest - interval '3 hours',
        CASE WHEN latest <= now() - interval '25 hours' THEN latest + interval '24 hours' END,
        CASE WHEN latest <= now() - interval '25 hours' THEN 'timeout' END,
        latest, '24 hours', '1 hour'
    FROM conversations
    RETURNING id, last_activity_at
), written AS (
    INSERT INTO marketplace.chat_messages (chat_id, sender, body, sent_at)
    SELECT id, sender, body,
        last_activity_at - before + make_interval(secs => waits * 3000 * pg_temp.pick(id, 10))
    FROM opened CROSS JOIN (VALUES
        ('customer', 'Could you help me with a task this week?', interval '3 hours', 0),
        ('customer', 'It is about moving some furniture.', '179 minutes', 0),
        ('expert', 'Gladly. When would suit you?', '2 hours 58 minutes', 1),
        ('customer', 'Saturday morning.', '0', 0)) AS lines (sender, body, before, waits)
    RETURNING 1
)
SELECT (SELECT count(*) FROM opened) AS chats, (SELECT count(*) FROM written) AS chat_messages

-- tasks: half of them open, most with days to go
INSERT INTO marketplace.tasks (owner_id, expert_id, title, reward, status, created_at, deadline_at,
    completed_at, cancelled_at, cancel_reason)
SELECT i, CASE WHEN status IN ('taken', 'completed') THEN e.id END,
    (ARRAY['Assemble a wardrobe', 'Translate a letter', 'Walk the dog', 'Repair a bicycle',
           'Tutor mathematics', 'Move a sofa'])[1 + mod(i, 6)],
    10 + round((490 * pg_temp.pick(i, 11))::numeric, 2), status,
    deadline_at - interval '70 days', deadline_at,
    CASE WHEN status = 'completed' THEN deadline_at - interval '2 days' END,
    CASE WHEN status = 'cancelled' THEN deadline_at - interval '3 days' END,
    CASE WHEN status = 'cancelled' THEN 'owner' END
FROM generate_series(%(first)s + 1, %(last)s) AS i
JOIN marketplace.task_experts AS e
    ON e.user_id = 1 + 50 * floor(pg_temp.pick(i, 9) * ((%(last)s - 1) / 50 + 1))::bigint
CROSS JOIN LATERAL (SELECT CASE WHEN mod(i, 10) < 5 THEN 'open' WHEN mod(i, 10) = 5 THEN 'taken'
    WHEN mod(i, 10) < 9 THEN 'completed' ELSE 'cancelled' END AS status) AS s
CROSS JOIN LATERAL (SELECT pg_temp.pick(i, 12) AS due, pg_temp.pick(i, 13) AS at) AS p
CROSS JOIN LATERAL (SELECT now() + CASE
    WHEN status <> 'open' THEN make_interval(hours => -(720 * at)::integer)
    WHEN due < 0.02 THEN make_interval(secs => -86400 * at)
    WHEN due < 0.05 THEN make_interval(secs => 900 * at)
    ELSE make_interval(secs => 900 + 30 * 86400 * at) END AS deadline_at) AS d
WHERE mod(i, 100) < %(share)s

-- coupons: a third used, the others active
INSERT INTO marketplace.coupons (user_id, code, discount, status, expires_at, used_at)
SELECT i, 'SAMPLE-C' || lpad(i::text, 8, '0'), 5 * (1 + mod(i, 4)), status, expires_at,
    CASE WHEN status = 'used' THEN now() - make_interval(hours => (500 * at)::integer) END
FROM generate_series(%(first)s + 1, %(last)s) AS i
CROSS JOIN LATERAL (SELECT CASE WHEN mod(i, 3) = 0 THEN 'used' ELSE 'active' END AS status) AS s
CROSS JOIN LATERAL (SELECT pg_temp.pick(i, 14) AS due, pg_temp.pick(i, 15) AS at) AS p
CROSS JOIN LATERAL (SELECT now() + CASE
    WHEN due < 0.02 THEN make_interval(secs => -86400 * at)
    WHEN due < 0.05 THEN make_interval(secs => 1800 * at)
    ELSE make_interval(secs => 1800 + 90 * 86400 * at) END AS expires_at) AS e
WHERE mod(i, 100) < %(share)s

-- invitation_codes: one in ten never expires
INSERT INTO marketplace.invitation_codes (inviter_id, code, uses, max_uses, status, expires_at)
SELECT i, 'SAMPLE-I' || lpad(i::text, 8, '0'), uses, 5,
    CASE WHEN uses = 5 THEN 'used_up' ELSE 'active' END, expires_at
FROM generate_series(%(first)s + 1, %(last)s) AS i
CROSS JOIN LATERAL (SELECT floor(6 * pg_temp.pick(i, 16))::integer AS uses,
    pg_temp.pick(i, 17) AS due, pg_temp.pick(i, 18) AS at) AS p
CROSS JOIN LATERAL (SELECT now() + CASE
    WHEN due < 0.02 THEN make_interval(secs => -86400 * at)
    WHEN due < 0.05 THEN make_interval(secs => 1800 * at)
    WHEN due < 0.9 THEN make_interval(secs => 1800 + 60 * 86400 * at) END AS expires_at) AS e
WHERE mod(i, 100) < %(share)s

-- points_accounts: one each
INSERT INTO marketplace.points_accounts (user_id)
SELECT i FROM generate_series(%(first)s + 1, %(last)s) AS i WHERE mod(i, 100) < %(share)s

-- points_lots: of 100 to 999 points; one in ten never expires
INSERT INTO marketplace.points_lots (user_id, granted, remaining, granted_at, expires_at)
SELECT i, granted, granted, now() - interval '200 days', now() + CASE
    WHEN due < 0.02 THEN make_interval(secs => -86400 * at)
    WHEN due < 0.05 THEN make_interval(secs => 1800 * at)
    WHEN due < 0.9 THEN make_interval(secs => 1800 + 180 * 86400 * at) END
FROM generate_series(%(first)s + 1, %(last)s) AS i
CROSS JOIN LATERAL (SELECT 100 + mod(i, 900) AS granted, pg_temp.pick(i, 19) AS due,
    pg_temp.pick(i, 20) AS at) AS p
WHERE mod(i, 100) < %(share)s

-- points_spent: by every third user
INSERT INTO marketplace.points_ledger (user_id, lot_id, kind, amount, created_at)
SELECT user_id, id, 'spend', -(1 + mod(user_id, 100)), granted_at + interval '20 days'
FROM marketplace.points_lots
WHERE user_id > %(first)s AND user_id <= %(last)s AND mod(user_id, 3) = 0
  AND mod(user_id, 100) < %(share)s

-- activities: one for a hundred users
INSERT INTO marketplace.activities (title, status, starts_at, ends_at)
SELECT 'Sample activity ' || i, CASE WHEN starts_at <= now() THEN 'running' ELSE 'planned' END,
    starts_at, starts_at + interval '3 days'
FROM generate_series(%(first)s + 1, %(last)s) AS i
CROSS JOIN LATERAL (SELECT pg_temp.pick(i, 21) AS due, pg_temp.pick(i, 22) AS at) AS p
CROSS JOIN LATERAL (SELECT now() - interval '3 days' + CASE
    WHEN due < 0.1 THEN make_interval(secs => -86400 * at)
    WHEN due < 0.3 THEN make_interval(secs => 1800 * at)
    ELSE make_interval(secs => 1800 + 30 * 86400 * at) END AS starts_at) AS s
WHERE mod(i, 100) < %(share)s

-- agents_present: all sample agents
SELECT coalesce(array_agg(id ORDER BY id), '{}') AS ids
FROM marketplace.agents WHERE name LIKE 'Sample agent %%'

-- present: how many sample users there are, and whether there are others
SELECT count(*) FILTER (WHERE username = 'sample-' || lpad(id::text, 8, '0')) AS sample,
    count(*) AS users
FROM marketplace.users

-- reserve: the next user of anybody else's comes after the sample's
SELECT setval(pg_get_serial_sequence('marketplace.users', 'id'), greatest(%(last)s::bigint,
    (SELECT last_value FROM marketplace.users_id_seq)))
