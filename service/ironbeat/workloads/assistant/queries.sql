-- account_named: the account that a webhook's address names
SELECT id, channel, app_id, enabled, secrets, options FROM assistant.accounts
WHERE channel = %(channel)s AND app_id = %(app_id)s

-- account_by_id: an account by its number
SELECT id, channel, app_id, enabled, secrets, options FROM assistant.accounts WHERE id = %(id)s

-- accounts: all of them
SELECT id, channel, app_id, enabled, secrets, options FROM assistant.accounts
ORDER BY channel, app_id

-- save_account: store an account, or replace what it had
INSERT INTO assistant.accounts AS a (channel, app_id, secrets, options)
VALUES (%(channel)s, %(app_id)s, %(secrets)s, %(options)s)
ON CONFLICT (channel, app_id) DO UPDATE
SET secrets = excluded.secrets, options = excluded.options, updated_at = now()
RETURNING id, channel, app_id, enabled, secrets, options

-- set_enabled: switch an account on or off
UPDATE assistant.accounts SET enabled = %(enabled)s, updated_at = now()
WHERE channel = %(channel)s AND app_id = %(app_id)s RETURNING id

-- remove_account: with everything that hangs on it
DELETE FROM assistant.accounts WHERE channel = %(channel)s AND app_id = %(app_id)s RETURNING id

-- use_nonce: note which body a nonce came with, and answer with the first one's digest
INSERT INTO assistant.used_nonces AS n (account_id, nonce, body_digest)
VALUES (%(account_id)s, %(nonce)s, %(digest)s)
ON CONFLICT (account_id, nonce) DO UPDATE SET nonce = n.nonce
RETURNING n.body_digest

-- receive: store a message once, with its user and its place in the conversation
WITH person AS (
    INSERT INTO assistant.users AS u (account_id, external_id, name, language, permissions)
    VALUES (
        %(account_id)s, %(user_id)s, %(user_name)s, nullif(%(language)s, ''), %(permissions)s)
    ON CONFLICT (account_id, external_id) DO UPDATE
    SET last_seen_at = now(),
        name = coalesce(nullif(excluded.name, ''), u.name),
        language = coalesce(excluded.language, u.language)
    RETURNING id, language
), talk AS (
    INSERT INTO assistant.conversations AS c (
        account_id, external_id, reply_to, last_seq, work_seq)
    VALUES (%(account_id)s, %(conversation_id)s, %(reply_to)s, 1, 1)
    ON CONFLICT (account_id, external_id) DO UPDATE
    SET reply_to = excluded.reply_to,
        last_seq = c.last_seq + 1,
        work_seq = c.work_seq + 1,
        last_activity_at = now()
    RETURNING id, last_seq
)
INSERT INTO assistant.messages (
    account_id, conversation_id, user_id, external_id, seq, message_type, content, language,
    sent_at, raw_data)
SELECT %(account_id)s, talk.id, person.id, %(message_id)s, talk.last_seq, %(message_type)s,
    %(content)s, coalesce(nullif(%(language)s, ''), person.language, %(default_language)s),
    %(sent_at)s, %(raw_data)s
FROM person, talk
ON CONFLICT (account_id, external_id) DO NOTHING
RETURNING id, conversation_id, user_id, seq, language

-- message_named: a stored message by the channel's own id
SELECT id, conversation_id, user_id, seq, state FROM assistant.messages
WHERE account_id = %(account_id)s AND external_id = %(message_id)s

-- user: a user and the account that they write to
SELECT id, account_id, external_id, name, language, permissions FROM assistant.users
WHERE id = %(id)s

-- unhurried: what the next statements write may be lost with the server, and is not waited for
SET LOCAL synchronous_commit = off

-- hold: take a conversation, or go on holding it
UPDATE assistant.conversations
SET held_by = %(holder)s, held_until = now() + make_interval(secs => %(seconds)s), resume_at = NULL
WHERE id = %(id)s
    AND (held_by IS NULL OR held_by = %(holder)s OR held_until < now())
    AND (resume_at IS NULL OR resume_at <= now() + interval '0.5 seconds')
RETURNING id

-- look: what is to be done in a conversation that one holds, oldest first
SELECT c.account_id, c.reply_to, c.work_seq,
    (
        SELECT coalesce(jsonb_agg(a ORDER BY a.id), '[]')
        FROM (
            SELECT id, message_id, kind, origin, part, content, state, attempts, unknown_fates,
                extract(epoch FROM next_attempt_at - now()) AS due_in,
                extract(epoch FROM now() - sending_since) AS sending_for,
                extract(epoch FROM now() - created_at) AS age
            FROM assistant.answers
            WHERE conversation_id = c.id AND state IN ('pending', 'sending')
            ORDER BY id LIMIT 20
        ) AS a
    ) AS answers,
    (
        SELECT coalesce(jsonb_agg(m ORDER BY m.seq), '[]')
        FROM (
            SELECT m.id, m.seq, m.external_id, m.message_type, m.content, m.language, m.attempts,
                m.user_id, u.name AS user_name, u.permissions
            FROM assistant.messages AS m JOIN assistant.users AS u ON u.id = m.user_id
            WHERE m.conversation_id = c.id AND m.state = 'received'
            ORDER BY m.seq LIMIT 2
        ) AS m
    ) AS messages
FROM assistant.conversations AS c
WHERE c.id = %(id)s AND c.held_by = %(holder)s

-- finish_message: a message is handled, and these are its answers, the first perhaps on its way
WITH done AS (
    UPDATE assistant.messages SET state = %(state)s, handled_at = now(), error = %(error)s
    WHERE id = %(id)s AND state = 'received'
        AND EXISTS (
            SELECT FROM assistant.conversations AS c
            WHERE c.id = conversation_id AND c.held_by = %(holder)s)
    RETURNING id, conversation_id
)
INSERT INTO assistant.answers (
    conversation_id, message_id, kind, part, content, state, attempts, sending_since, ended_at)
SELECT done.conversation_id, done.id, 'answer', part - 1, content,
    CASE WHEN part = 1 THEN %(first_state)s ELSE 'pending' END,
    CASE WHEN part = 1 AND %(first_state)s <> 'pending' THEN 1 ELSE 0 END,
    CASE WHEN part = 1 AND %(first_state)s = 'sending' THEN now() END,
    CASE WHEN part = 1 AND %(first_state)s = 'returned' THEN now() END
FROM done, unnest(%(contents)s::text[]) WITH ORDINALITY AS p (content, part)
ORDER BY part
RETURNING id

-- count_failure: handling a message failed once more
UPDATE assistant.messages SET attempts = attempts + 1, error = %(error)s
WHERE id = %(id)s AND state = 'received' RETURNING attempts

-- message_state: what became of a message
SELECT state FROM assistant.messages WHERE id = %(id)s

-- begin_sending: an answer is on its way from now on
UPDATE assistant.answers
SET state = 'sending', attempts = attempts + 1, sending_since = now()
WHERE id = %(id)s AND state = 'pending' AND next_attempt_at <= now() + interval '0.5 seconds'
RETURNING attempts

-- settle: what became of an attempt to send; an attempt that was overtaken changes nothing
UPDATE assistant.answers
SET state = %(state)s,
    sending_since = NULL,
    unknown_fates = unknown_fates + %(unknown)s,
    next_attempt_at = now() + make_interval(secs => %(wait)s),
    provider_id = coalesce(%(provider_id)s, provider_id),
    error = %(error)s,
    ended_at = CASE WHEN %(state)s <> 'pending' THEN now() END
WHERE id = %(id)s AND state = 'sending' AND attempts = %(attempts)s
RETURNING id

-- release: give a conversation back, unless work came since one looked
UPDATE assistant.conversations SET held_by = NULL, held_until = NULL
WHERE id = %(id)s AND held_by = %(holder)s AND work_seq = %(work_seq)s RETURNING id

-- release_until: give a conversation back; nobody goes on with it before then
UPDATE assistant.conversations
SET held_by = NULL, held_until = NULL,
    resume_at = CASE WHEN %(wait)s > 0 THEN now() + make_interval(secs => %(wait)s) END
WHERE id = %(id)s AND held_by = %(holder)s RETURNING id

-- say: something for a chat beside the answer to a message; it is said once
WITH told AS (
    INSERT INTO assistant.answers (conversation_id, message_id, kind, origin, part, content)
    SELECT conversation_id, id, %(kind)s, %(origin)s, %(part)s, %(content)s
    FROM assistant.messages WHERE id = %(message_id)s
    ON CONFLICT DO NOTHING
    RETURNING conversation_id
)
UPDATE assistant.conversations SET work_seq = work_seq + 1
WHERE id = (SELECT conversation_id FROM told) RETURNING id

-- history: what was said before a message, newest first
SELECT role, content FROM (
    (
        SELECT 'user' AS role, content, seq, 0 AS part FROM assistant.messages
        WHERE conversation_id = %(id)s AND seq < %(seq)s AND content <> ''
        ORDER BY seq DESC LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT 'assistant', a.content, m.seq, 1 + a.part
        FROM assistant.messages AS m JOIN assistant.answers AS a ON a.message_id = m.id
        WHERE m.conversation_id = %(id)s AND m.seq < %(seq)s AND a.kind = 'answer'
        ORDER BY m.seq DESC LIMIT %(limit)s
    )
) AS said
ORDER BY seq DESC, part DESC LIMIT %(limit)s

-- unanswered: conversations that have work and that nobody is at
SELECT c.id FROM assistant.conversations AS c
WHERE c.id IN (
        SELECT conversation_id FROM assistant.messages
        WHERE state = 'received' AND received_at < now() - make_interval(secs => %(older)s)
        UNION
        SELECT conversation_id FROM assistant.answers
        WHERE state IN ('pending', 'sending')
            AND created_at < now() - make_interval(secs => %(older)s)
    )
    AND (c.held_until IS NULL OR c.held_until < now())
    AND (c.resume_at IS NULL OR c.resume_at < now() - make_interval(secs => %(older)s))
ORDER BY c.last_activity_at LIMIT %(limit)s

-- token: the access token of an account, as it is
SELECT token, version, extract(epoch FROM expires_at - now()) AS holds_for, lifetime_seconds,
    refreshing_until > now() AS refreshing
FROM assistant.access_tokens WHERE account_id = %(account_id)s

-- begin_refresh: be the only one who fetches a token, if it is due or known to be bad
INSERT INTO assistant.access_tokens AS t (account_id, refreshing_by, refreshing_until)
VALUES (%(account_id)s, %(holder)s, now() + make_interval(secs => %(seconds)s))
ON CONFLICT (account_id) DO UPDATE
SET refreshing_by = excluded.refreshing_by, refreshing_until = excluded.refreshing_until
WHERE (t.refreshing_until IS NULL OR t.refreshing_until < now())
    AND (
        t.expires_at IS NULL
        OR t.version = %(bad_version)s
        OR t.expires_at - now() < least(
            make_interval(secs => %(margin)s), make_interval(secs => t.lifetime_seconds / 2)))
RETURNING version

-- end_refresh: a token was fetched
UPDATE assistant.access_tokens
SET token = %(token)s, version = version + 1, lifetime_seconds = %(seconds)s,
    expires_at = now() + make_interval(secs => %(seconds)s), refreshed_at = now(),
    refreshing_by = NULL, refreshing_until = NULL, failures = 0, last_error = NULL
WHERE account_id = %(account_id)s AND refreshing_by = %(holder)s
RETURNING version

-- fail_refresh: no token was fetched; others may try at once
UPDATE assistant.access_tokens
SET refreshing_by = NULL, refreshing_until = NULL, failures = failures + 1, last_error = %(error)s
WHERE account_id = %(account_id)s AND refreshing_by = %(holder)s

-- forget_token: an account's secrets were replaced
DELETE FROM assistant.access_tokens WHERE account_id = %(account_id)s

-- expire_conversations: those long inactive, with their messages; one batch
WITH doomed AS (
    SELECT id FROM assistant.conversations
    WHERE last_activity_at < now() - make_interval(days => %(days)s)
        AND (held_until IS NULL OR held_until < now())
    ORDER BY last_activity_at, id LIMIT %(batch)s FOR UPDATE SKIP LOCKED
), said AS (
    SELECT count(*) AS messages FROM assistant.messages
    WHERE conversation_id IN (SELECT id FROM doomed)
), gone AS (
    DELETE FROM assistant.conversations WHERE id IN (SELECT id FROM doomed) RETURNING id
)
SELECT (SELECT count(*) FROM gone) AS conversations, (SELECT messages FROM said) AS messages

-- forget_nonces: those that no request can come with any more; one batch
WITH old AS (
    SELECT account_id, nonce FROM assistant.used_nonces
    WHERE seen_at < now() - make_interval(secs => %(seconds)s)
    ORDER BY seen_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
DELETE FROM assistant.used_nonces AS n USING old
WHERE n.account_id = old.account_id AND n.nonce = old.nonce RETURNING 1

-- forget_tool_runs: of tools, older than so many days; one batch
WITH old AS (
    SELECT id FROM assistant.tool_runs
    WHERE started_at < now() - make_interval(days => %(days)s)
    ORDER BY started_at, id LIMIT %(batch)s FOR UPDATE SKIP LOCKED
)
DELETE FROM assistant.tool_runs WHERE id IN (SELECT id FROM old) RETURNING 1

-- begin_tool_run: a tool was called
INSERT INTO assistant.tool_runs (tool, user_id, message_id, run_id, input)
VALUES (%(tool)s, %(user_id)s, %(message_id)s, %(run_id)s, %(input)s) RETURNING id

-- end_tool_run: what came of it
UPDATE assistant.tool_runs
SET state = %(state)s, output = %(output)s, error = %(error)s, duration_ms = %(duration_ms)s
WHERE id = %(id)s RETURNING id

-- grant: let a user do something
UPDATE assistant.users
SET permissions = (
    SELECT array_agg(DISTINCT p ORDER BY p) FROM unnest(permissions || %(permission)s::text) AS p)
WHERE id = %(id)s RETURNING permissions

-- revoke: do not let a user do something any more
UPDATE assistant.users SET permissions = array_remove(permissions, %(permission)s)
WHERE id = %(id)s RETURNING permissions

-- users_listed: who wrote lately
SELECT u.id, a.channel, a.app_id, u.external_id, u.name, u.permissions, u.last_seen_at
FROM assistant.users AS u JOIN assistant.accounts AS a ON a.id = u.account_id
ORDER BY u.last_seen_at DESC LIMIT %(limit)s

-- answers_listed: what was said lately, or what stands in a certain state
SELECT w.id, a.channel, a.app_id, w.conversation_id, m.external_id AS message_id, w.kind, w.state,
    w.attempts, w.unknown_fates, w.error, w.created_at, w.ended_at
FROM assistant.answers AS w
    JOIN assistant.messages AS m ON m.id = w.message_id
    JOIN assistant.accounts AS a ON a.id = m.account_id
WHERE %(state)s::text IS NULL OR w.state = %(state)s
ORDER BY w.id DESC LIMIT %(limit)s

-- warehouse: by its code or by a name
SELECT code, name FROM assistant.warehouses
WHERE code = upper(%(asked)s) OR lower(name) = lower(%(asked)s)
    OR lower(%(asked)s) = ANY (SELECT lower(other) FROM unnest(also) AS other)
ORDER BY code LIMIT 1

-- warehouses: all of them
SELECT code, name, also FROM assistant.warehouses ORDER BY code

-- stock_summary: of one warehouse
SELECT count(*) AS products, coalesce(sum(on_hand), 0) AS on_hand,
    coalesce(sum(reserved), 0) AS reserved, coalesce(sum(on_hand - reserved), 0) AS available,
    count(*) FILTER (WHERE on_hand - reserved <= reorder_level) AS low,
    max(updated_at) AS updated_at
FROM assistant.stock WHERE warehouse = %(warehouse)s

-- stock_lines: products of one warehouse, those that are running out first
SELECT s.sku, p.name, p.unit, s.on_hand, s.reserved, s.on_hand - s.reserved AS available,
    s.on_hand - s.reserved <= s.reorder_level AS low
FROM assistant.stock AS s JOIN assistant.products AS p ON p.sku = s.sku
WHERE s.warehouse = %(warehouse)s
    AND (%(sku)s::text IS NULL OR s.sku = upper(%(sku)s) OR p.name ILIKE '%%' || %(sku)s || '%%')
ORDER BY low DESC, s.on_hand - s.reserved - s.reorder_level, s.sku LIMIT %(limit)s

-- conversation: one by its number
SELECT id, account_id, external_id, reply_to FROM assistant.conversations WHERE id = %(id)s

-- channel_of_message: where a message came from
SELECT a.channel, m.conversation_id, m.language
FROM assistant.messages AS m JOIN assistant.accounts AS a ON a.id = m.account_id
WHERE m.id = %(id)s

-- documents_present: whether there are documents to search
SELECT to_regclass('documents.chunks') IS NOT NULL
    AND to_regclass('documents.documents') IS NOT NULL AS present

-- search_documents: passages by the share of the terms that they hold
SELECT r.text, coalesce(nullif(d.title, ''), nullif(d.path, ''), d.id) AS source
FROM (
    SELECT c.text, c.document_id,
        (SELECT count(*) FROM unnest(%(terms)s::text[]) AS t WHERE strpos(lower(c.text), t) > 0)
            ::float8 / cardinality(%(terms)s::text[]) AS share
    FROM documents.chunks AS c
) AS r JOIN documents.documents AS d ON d.id = r.document_id
WHERE r.share >= %(least)s
ORDER BY r.share DESC, length(r.text) LIMIT %(limit)s

-- open_of_app: how many messages and answers of an app are under way
SELECT (
        SELECT count(*) FROM assistant.messages AS m
        WHERE m.account_id = a.id AND m.state = 'received'
    ) + (
        SELECT count(*) FROM assistant.answers AS w
            JOIN assistant.messages AS m ON m.id = w.message_id
        WHERE m.account_id = a.id AND w.state IN ('pending', 'sending')
    ) AS open
FROM assistant.accounts AS a WHERE a.channel = %(channel)s AND a.app_id = %(app_id)s
