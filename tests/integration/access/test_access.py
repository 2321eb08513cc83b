"""People, sessions and the audit in PostgreSQL."""

from __future__ import annotations

import psycopg
import pytest

from ironbeat.access import audit, sessions, users
from ironbeat.access.audit import Actor
from ironbeat.access.passwords import WeakPassword
from ironbeat.access.users import BadUser, NoSuchUser, UserExists

GIVEN = {"viewer": "looks-only-123", "operator": "may-change-123"}


@pytest.fixture
def connection(database_url):
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


def test_the_accounts_of_the_settings_let_somebody_in(connection):
    def enter(name, password):
        return users.authenticate(connection, GIVEN, name, password)

    assert enter("viewer", "looks-only-123").role == "viewer"
    assert enter("operator", "may-change-123").role == "operator"
    assert enter("operator", "looks-only-123") is None
    assert enter("nobody", "may-change-123") is None
    assert users.authenticate(connection, {}, "operator", "") is None
    assert users.authenticate(connection, {"operator": ""}, "operator", "") is None


def test_a_person_of_the_table_takes_the_place_of_the_settings(connection):
    users.add(connection, "operator", "viewer", "another-password")
    assert users.authenticate(connection, GIVEN, "operator", "may-change-123") is None
    assert users.authenticate(connection, GIVEN, "operator", "another-password").role == "viewer"
    assert [(u.name, u.source) for u in users.everybody(connection, GIVEN)] == [
        ("operator", "table"),
        ("viewer", "settings"),
    ]


def test_people_are_added_changed_and_removed(connection):
    users.add(connection, "陳小美", "viewer", "password-of-hers")
    with pytest.raises(UserExists, match="passwd"):
        users.add(connection, "陳小美", "viewer", "password-of-hers")
    for name in ("", " x", "a b", "x\n", "y" * 101):
        with pytest.raises(BadUser):
            users.add(connection, name, "viewer", "password-of-hers")
    with pytest.raises(BadUser, match="role"):
        users.add(connection, "bob", "admin", "password-of-his")
    with pytest.raises(WeakPassword):
        users.add(connection, "bob", "viewer", "short")
    users.change(connection, "陳小美", role="operator")
    assert users.authenticate(connection, {}, "陳小美", "password-of-hers").role == "operator"
    users.remove(connection, "陳小美")
    with pytest.raises(NoSuchUser):
        users.remove(connection, "陳小美")
    with pytest.raises(NoSuchUser):
        users.change(connection, "陳小美", role="viewer")


def test_a_session_holds_until_it_ends(connection):
    users.add(connection, "ann", "operator", "password-of-hers")
    user = users.authenticate(connection, {}, "ann", "password-of-hers")
    key = sessions.start(connection, user, "::1", 60)
    found = sessions.find(connection, key)
    assert (found.name, found.role, found.may_change) == ("ann", "operator", True)
    assert found.vouches(found.csrf) and not found.vouches("") and not found.vouches("é\ud800")
    assert sessions.find(connection, key + "x") is None
    kept = connection.execute("SELECT digest FROM ironbeat.web_sessions").fetchall()
    assert key not in str(kept)
    # Another password throws everybody out who came in with the old one.
    users.change(connection, "ann", password="another-password")
    assert sessions.find(connection, key) is None


@pytest.mark.parametrize(
    "aged",
    [
        "expires_at = now() - interval '1 second'",
        f"seen_at = now() - interval '{sessions.IDLE_SECONDS + 1} seconds'",
    ],
)
def test_a_session_that_is_over_or_rests_too_long_lets_nobody_in(connection, aged):
    key = sessions.start(connection, users.User("viewer", "viewer", "settings"), "", 60)
    connection.execute(f"UPDATE ironbeat.web_sessions SET {aged}")
    assert sessions.find(connection, key) is None


def test_failed_logins_are_bounded_for_one_person_from_one_place(connection):
    for _ in range(sessions.MOST_OF_PAIR):
        sessions.check_tries(connection, "ann", "10.0.0.1")
        sessions.count_failure(connection, "ann", "10.0.0.1")
    with pytest.raises(sessions.TooManyTries) as caught:
        sessions.check_tries(connection, "ann", "10.0.0.1")
    assert 0 < caught.value.seconds <= sessions.FAILURE_WINDOW_SECONDS
    # She gets in from elsewhere, and others from there.
    sessions.check_tries(connection, "ann", "10.0.0.2")
    sessions.check_tries(connection, "bob", "10.0.0.1")
    connection.execute("UPDATE ironbeat.login_failures SET since = since - interval '1 hour'")
    sessions.check_tries(connection, "ann", "10.0.0.1")


def test_many_names_from_one_place_are_bounded_too(connection):
    for number in range(sessions.MOST_OF_ADDRESS):
        sessions.count_failure(connection, f"name{number}", "10.0.0.1")
    with pytest.raises(sessions.TooManyTries):
        sessions.check_tries(connection, "fresh", "10.0.0.1")


def test_the_audit_has_what_was_done_refused_and_broken_off(connection, database_url):
    ann = Actor("ann", "dashboard", "10.0.0.1")
    with audit.noted(database_url, ann, "schedule.pause", "nightly", {"why": "holiday"}) as note:
        [entry] = audit.entries(connection)
        assert entry.outcome is None, "it stands there before anything is done"
        note.detail["runs"] = 3
    with (
        pytest.raises(LookupError),
        audit.noted(database_url, Actor("token", "api"), "run.cancel", "x\0y"),
    ):
        raise LookupError("no such run")
    refused, done = audit.entries(connection)
    assert (done.who, done.via, done.address) == ("ann", "dashboard", "10.0.0.1")
    assert (done.action, done.subject, done.outcome) == ("schedule.pause", "nightly", "done")
    assert done.detail == {"why": "holiday", "runs": 3}
    assert refused.outcome == "LookupError: no such run" and refused.subject == "x\\x00y"

    assert [e.id for e in audit.entries(connection, who="ann")] == [done.id]
    assert [e.id for e in audit.entries(connection, action="run.")] == [refused.id]
    assert [e.id for e in audit.entries(connection, before=refused.id)] == [done.id]
    connection.execute(
        "UPDATE ironbeat.audit SET at = at - interval '10 days' WHERE id = %s", (done.id,)
    )
    assert audit.prune(connection, 9) == 1
    assert [e.id for e in audit.entries(connection)] == [refused.id]


def test_nothing_is_done_that_cannot_be_written_down(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE ironbeat.audit RENAME TO elsewhere")
    done = []
    with (
        pytest.raises(psycopg.errors.UndefinedTable),
        audit.noted(database_url, Actor("ann", "cli"), "queue.purge", "docks"),
    ):
        done.append("purged")
    assert not done
