import psycopg
import pytest

from ironbeat.cli.failures import ExitStatus
from ironbeat.settings import get_settings


@pytest.fixture
def down(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IRONBEAT_DATABASE_URL", "postgresql://127.0.0.1:1/x")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:1/1")
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def at_work(settings):
    """A worker and a beat that hold their leases, a schedule, and runs that ended both ways."""
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute(
            """
            INSERT INTO ironbeat.leases (id, kind, name, host, pid, queues, expires_at, info) VALUES
              ('w1', 'worker', 'worker-01@h', 'h', 11, '{default}', now() + interval '1 minute',
               '{"rss_mb": 120, "consumed": 7, "tasks": ["a.b"]}'),
              ('b1', 'beat', 'beat@h', 'h', 12, '{}', now() + interval '1 minute',
               jsonb_build_object('beat', jsonb_build_object('last_tick_at', now(), 'fired', 3)));
            INSERT INTO ironbeat.schedules (name, task, kind, expression, timezone, next_fire_at)
              VALUES ('nightly', 'a.b', 'cron', '0 3 * * *', 'UTC', now() + interval '1 hour');
            INSERT INTO ironbeat.run_history
              (id, task, state, started_at, ended_at, attempt, error, created_at) VALUES
              ('r-good', 'a.b', 'succeeded', now() - interval '2 s', now(), 1, NULL, now()),
              ('r-bad', 'a.b', 'failed', now() - interval '3 s', now(), 1,
               E'ValueError: no such customer\nmore', now());
            """
        )


def test_health_is_the_same_answer_as_over_http(at_work, run) -> None:
    assert run("health", "--json") == {
        "status": "healthy",
        "checks": {
            "database": "ok",
            "redis": "ok",
            "celery_worker": "ok (1 workers)",
            "beat": "ok",
        },
    }
    assert run("health").startswith("healthy")


def test_without_workers_the_exit_status_says_unhealthy(settings, run) -> None:
    told = run("health", "--json", exit_status=ExitStatus.FAILED)
    assert told["status"] == "unhealthy"
    assert told["checks"]["celery_worker"] == "no active workers"
    assert "no active workers" in run("status", exit_status=ExitStatus.FAILED)


def test_with_everything_down_both_answer_and_say_what_is_wrong(down, run) -> None:
    told = run("health", "--json", exit_status=ExitStatus.FAILED)
    assert told["checks"]["database"] == "connection refused"
    shown = run("status", exit_status=ExitStatus.FAILED)
    assert "PostgreSQL: connection refused" in shown
    assert "Redis: connection refused" in shown


def test_status_shows_limits_processes_queues_schedules_and_failures(at_work, run) -> None:
    shown = run("status")
    for part in ("success rate", "50 %", "> 95", "worker-01@h", "120 MB", "nightly", "0 3 * * *"):
        assert part in shown, part
    assert "ValueError: no such customer" in shown
    told = run("status", "--json")
    assert "success_rate" in told["broken"]
    assert told["workers"][0]["tasks"] == ["a.b"]
    assert told["queues"][0]["name"] == "default"


def test_the_report_tells_what_a_period_brought(at_work, run) -> None:
    shown = run("report", "--since", "1h")
    assert "2 runs" in shown
    assert "Task modules" in shown
    earlier = run("report", "--since", "3h", "--until", "2h", "--json")
    assert earlier["between"]["groups"] == []
    assert earlier["status"]["health"]["status"] == "healthy"


def test_a_period_that_is_none_is_a_usage_error(run) -> None:
    assert "Exchange" in run("report", "--since", "1h", "--until", "2h", exit_status=2)
    assert "03:00" in run("report", "--since", "teatime", exit_status=2)
