-- user: a person by name
SELECT name, role, password_hash, created_at, changed_at FROM ironbeat.users WHERE name = %(name)s

-- users: everybody
SELECT name, role, password_hash, created_at, changed_at FROM ironbeat.users ORDER BY name

-- add_user: a new person; nothing comes back when the name is taken
INSERT INTO ironbeat.users (name, role, password_hash) VALUES (%(name)s, %(role)s, %(hash)s)
ON CONFLICT (name) DO NOTHING RETURNING name

-- change_user: another password, or another role
UPDATE ironbeat.users SET password_hash = coalesce(%(hash)s, password_hash),
    role = coalesce(%(role)s, role), changed_at = clock_timestamp()
WHERE name = %(name)s RETURNING name

-- remove_user: forget a person
DELETE FROM ironbeat.users WHERE name = %(name)s RETURNING name

-- open_session: somebody logged in
INSERT INTO ironbeat.web_sessions (digest, name, role, csrf, address, expires_at)
VALUES (%(digest)s, %(name)s, %(role)s, %(csrf)s, %(address)s,
    clock_timestamp() + make_interval(secs => %(seconds)s))

-- session: who holds a key, unless it is over or was not used for too long
SELECT name, role, csrf, created_at, expires_at,
    extract(epoch FROM clock_timestamp() - seen_at)::float8
FROM ironbeat.web_sessions
WHERE digest = %(digest)s AND expires_at > clock_timestamp()
    AND seen_at > clock_timestamp() - make_interval(secs => %(idle)s)

-- seen: a session is in use
UPDATE ironbeat.web_sessions SET seen_at = clock_timestamp() WHERE digest = %(digest)s

-- close_session: somebody logged out
DELETE FROM ironbeat.web_sessions WHERE digest = %(digest)s

-- close_sessions_of: a person's password or role changed, or the person is gone
DELETE FROM ironbeat.web_sessions WHERE name = %(name)s

-- sweep: forget what is over
WITH over AS (
    DELETE FROM ironbeat.web_sessions WHERE expires_at < clock_timestamp()
)
DELETE FROM ironbeat.login_failures
WHERE since < clock_timestamp() - make_interval(secs => %(window)s)

-- failures: how often logins failed of late, under each key, and for how long that still counts
SELECT key, failures,
    extract(epoch FROM since + make_interval(secs => %(window)s) - clock_timestamp())::float8
FROM ironbeat.login_failures
WHERE key = ANY(%(keys)s) AND since > clock_timestamp() - make_interval(secs => %(window)s)

-- count_failure: a login failed
INSERT INTO ironbeat.login_failures AS f (key, failures)
SELECT key, 1 FROM unnest(%(keys)s::text[]) AS key
ON CONFLICT (key) DO UPDATE SET
    failures = CASE WHEN f.since > clock_timestamp() - make_interval(secs => %(window)s)
        THEN f.failures + 1 ELSE 1 END,
    since = CASE WHEN f.since > clock_timestamp() - make_interval(secs => %(window)s)
        THEN f.since ELSE clock_timestamp() END

-- forget_failures: a login succeeded
DELETE FROM ironbeat.login_failures WHERE key = ANY(%(keys)s)

-- note: somebody is about to change something
INSERT INTO ironbeat.audit (who, via, address, action, subject, detail)
VALUES (%(who)s, %(via)s, %(address)s, %(action)s, %(subject)s, %(detail)s) RETURNING id

-- complete: how the change went
UPDATE ironbeat.audit SET outcome = %(outcome)s, detail = detail || %(detail)s WHERE id = %(id)s

-- entries: the audit, the latest first
SELECT id, at, who, via, address, action, subject, detail, outcome FROM ironbeat.audit
WHERE (%(who)s::text IS NULL OR who = %(who)s)
    AND (%(action)s::text IS NULL OR action LIKE %(action)s || '%%')
    AND (%(subject)s::text IS NULL OR subject = %(subject)s)
    AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
    AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC LIMIT %(limit)s

-- prune_audit: forget what is older than so many days
DELETE FROM ironbeat.audit WHERE at < clock_timestamp() - make_interval(days => %(days)s)
