"""What was seen, and whether that is healthy."""

import psycopg
import pytest
import redis

from ironbeat.watch.health import Observations, describe, judge_health

WELL = {"workers": 1, "beats": 1, "schedulers": 0, "tick_age": 0.4}


def test_the_body_is_as_the_owners_wrote_it():
    health = judge_health(Observations(**WELL))
    assert health.http_status == 200
    body = health.body()
    assert body["status"] == "healthy"
    assert list(body["checks"].items())[:3] == [
        ("database", "ok"),
        ("redis", "ok"),
        ("celery_worker", "ok (1 workers)"),
    ]


@pytest.mark.parametrize(
    ("fields", "status", "check", "text"),
    [
        ({"workers": 0}, "unhealthy", "celery_worker", "no active workers"),
        ({"beats": 0}, "unhealthy", "beat", "no active beat"),
        ({"tick_age": 42.0}, "unhealthy", "beat", "no tick for 42 s"),
        ({"tick_age": None}, "healthy", "beat", "ok"),
        ({"redis": "connection refused"}, "degraded", "redis", "connection refused"),
        ({"redis": "no answer", "workers": 0}, "unhealthy", "redis", "no answer"),
        ({"redis": "no answer", "workers": 0, "schedulers": 1}, "degraded", "redis", "no answer"),
        ({"workers": 0, "schedulers": 1}, "degraded", "celery_worker", "no active workers"),
        ({"beats": 0, "schedulers": 1}, "degraded", "beat", "no active beat"),
        ({"use_redis": False}, "degraded", "redis", "not used (USE_REDIS=false)"),
        ({"use_redis": False}, "degraded", "flower", "disabled (USE_REDIS=false)"),
        # Redis has returned, and not everybody has heard of it.
        (
            {"drawing": 2},
            "degraded",
            "fallback",
            "active: 2 workers draw their runs from the ledger",
        ),
        (
            {"database": "no answer", "workers": None, "beats": None},
            "unhealthy",
            "celery_worker",
            "unknown: the database does not answer",
        ),
    ],
)
def test_what_is_wrong_is_named(fields, status, check, text):
    health = judge_health(Observations(**(WELL | fields)))
    assert health.status == status
    assert health.checks[check] == text
    assert health.http_status == (503 if status == "unhealthy" else 200)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            psycopg.OperationalError(
                'connection to server at "10.1.2.3", port 5432 failed: '
                'FATAL:  password authentication failed for user "billing"'
            ),
            "the login is refused",
        ),
        (
            redis.ConnectionError("Error 111 connecting to 10.1.2.3:6379. Connection refused."),
            "connection refused",
        ),
        (redis.TimeoutError("Timeout reading from 10.1.2.3:6379"), "no answer"),
        (psycopg.errors.UndefinedTable("x"), "reachable, but not migrated"),
        (RuntimeError("secret at 10.1.2.3"), "unreachable (RuntimeError)"),
    ],
)
def test_an_error_is_told_without_addresses_or_accounts(error, words):
    text = describe(error)
    assert text.startswith(words)
    assert "10.1.2.3" not in text and "billing" not in text
