"""What commands change is in the audit: the entry is there before, and tells what came of it."""

import sqlite3

import psycopg
import pytest
from tests.integration.cli.test_schedule import DJANGO_TABLES

from ironbeat.cli.failures import ExitStatus
from ironbeat.settings import get_settings


def entries(settings) -> list[tuple]:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        return connection.execute(
            "SELECT action, subject, outcome, detail FROM ironbeat.audit ORDER BY id"
        ).fetchall()


def test_an_import_tells_what_it_made(settings, run) -> None:
    made = run("schedule", "import", "--json")["created"]
    again = {"created": [], "updated": [], "retired": [], "refused": []}
    run("schedule", "import")
    assert entries(settings) == [
        ("schedule.import", "", "done", again | {"created": made}),
        ("schedule.import", "", "done", again),
    ]


def test_a_take_over_from_django_is_noted_and_a_dry_run_is_not(settings, run, tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'django.sqlite'}"
    with sqlite3.connect(tmp_path / "django.sqlite") as django:
        django.executescript(DJANGO_TABLES)
    run("schedule", "import", "--django", "--url", url, "--dry-run")
    assert entries(settings) == []
    told = run("schedule", "import", "--django", "--url", url, "--json")
    [(action, subject, outcome, detail)] = entries(settings)
    assert (action, subject, outcome) == ("schedule.import", "", "done")
    assert detail["added"] == told["added"] and detail["added"]
    assert detail["django"] is True and detail["refused"] == []


def test_a_password_in_a_parameter_is_not_kept(settings, run) -> None:
    url = "postgresql://me:s3cret-word@127.0.0.1:1/x"
    run("schedule", "import", "--django", "--url", url, exit_status=ExitStatus.USAGE)
    [entry] = entries(settings)
    assert entry[2].startswith("CommandError")
    assert "127.0.0.1:1" in str(entry) and "s3cret-word" not in str(entry)


def test_a_trial_is_a_submission(settings, run) -> None:
    run("test", "--timeout", "0.2", "--queue", "default", exit_status=ExitStatus.TIMED_OUT)
    [(action, subject, outcome, detail)] = entries(settings)
    assert (action, subject) == ("run.submit", "ironbeat.echo")
    assert outcome.startswith("CommandError: no answer")
    assert run("task", detail["run"], "--json")["task"] == "ironbeat.echo"


def test_the_tables_that_an_upgrade_made_hold_its_own_entry(
    run, monkeypatch: pytest.MonkeyPatch, empty_database_url: str
) -> None:
    monkeypatch.setenv("IRONBEAT_DATABASE_URL", empty_database_url)
    get_settings.cache_clear()
    applied = run("db", "upgrade", "--json")["applied"]
    assert entries(get_settings()) == [("database.upgrade", "", "done", {"applied": applied})]


def test_a_downgrade_is_noted_as_long_as_there_is_where(settings, run) -> None:
    run("db", "downgrade", "ironbeat", exit_status=ExitStatus.REFUSED)
    [(action, subject, outcome, _)] = entries(settings)
    assert (action, subject) == ("database.downgrade", "ironbeat")
    assert outcome.startswith("CommandError")
    # Back to nothing: the audit goes, too, and the command still ends well.
    run("db", "downgrade", "ironbeat", "--yes")
    run("db", "upgrade")
    assert [entry[0] for entry in entries(settings)] == ["database.upgrade"]


def test_a_workload_that_is_not_there_needs_no_audit(settings, run) -> None:
    run("sample", "no-such", exit_status=ExitStatus.NOT_FOUND)
    assert entries(settings) == []
