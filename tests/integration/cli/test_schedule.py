import sqlite3
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ironbeat.cli.failures import ExitStatus

ECHO = ["--task", "ironbeat.echo", "--args", '["hello"]']
PRUNE = "ironbeat-prune-daily"
PROJECTS = Path(__file__).parents[2] / "projects"

# What `manage.py migrate django_celery_beat` makes, as far as these rows need it.
DJANGO_TABLES = """
CREATE TABLE django_celery_beat_intervalschedule (id INTEGER PRIMARY KEY, every INT, period TEXT);
CREATE TABLE django_celery_beat_periodictask (
    id INTEGER PRIMARY KEY, name TEXT, task TEXT, args TEXT, kwargs TEXT, queue TEXT,
    exchange TEXT, routing_key TEXT, expires TEXT, enabled BOOL, last_run_at TEXT,
    total_run_count INT, date_changed TEXT, description TEXT, crontab_id INT, interval_id INT,
    solar_id INT, one_off BOOL, start_time TEXT, priority INT, headers TEXT, clocked_id INT,
    expire_seconds INT);
INSERT INTO django_celery_beat_intervalschedule VALUES (1, 5, 'minutes');
INSERT INTO django_celery_beat_periodictask (id, name, task, args, kwargs, enabled, interval_id,
    one_off, headers) VALUES
    (1, 'clean-up', 'ironbeat.echo', '["x"]', '{}', 1, 1, 0, '{}'),
    (2, 'unknown', 'shop.gone', '[]', '{}', 1, 1, 0, '{}');
"""


@pytest.fixture(autouse=True)
def _settings(settings):
    return settings


def names(found) -> list[str]:
    return [each["name"] for each in found]


def test_a_schedule_is_added_shown_listed_and_removed(run) -> None:
    made = run("schedule", "add", "greet", *ECHO, "--cron", "30 3 * * *", "--json")
    assert (made["kind"], made["expression"], made["timezone"]) == (
        "cron",
        "30 3 * * *",
        "Asia/Taipei",
    )
    assert made["state"] == "active" and made["declared"] is False
    assert names(run("schedule", "list", "gree", "--json")) == ["greet"]
    shown = run("schedule", "show", "greet")
    for part in ("every day at 03:30", "ironbeat.echo", "by an operator", "has not run yet"):
        assert part in shown, part
    assert "--yes" in run("schedule", "remove", "greet", exit_status=ExitStatus.REFUSED)
    run("schedule", "remove", "greet", "--yes")
    assert run("schedule", "list", "--json") == []


@pytest.mark.parametrize(
    "when",
    [
        ["--every", "90s"],
        ["--cron", "*/10 * * * * *"],
        ["--cron", "@daily"],
        ["--solar", "sunset@25.03,121.56"],
        ["--once", "2099-01-01T09:00"],
    ],
)
def test_every_kind_of_time_shows_when_it_fires_next(run, when) -> None:
    run("schedule", "add", "x", *ECHO, *when)
    coming = run("schedule", "next", "x", "--count", "3", "--json")
    instants = [datetime.fromisoformat(fire["due_at"]) for fire in coming]
    assert len(instants) == (1 if when[0] == "--once" else 3)
    assert instants == sorted(instants) and instants[0] > datetime.now(UTC)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([*ECHO, "--cron", "61 * * * *"], "61"),
        ([*ECHO, "--cron", "* * *"], "fields"),
        ([*ECHO, "--every", "0s"], "the shortest is 1s"),
        ([*ECHO, "--cron", "@daily", "--timezone", "Asia/Taipeh"], "Taipeh"),
        ([*ECHO, "--cron", "@daily", "--every", "5m"], "only one"),
        ([*ECHO], "cron, every, solar, once"),
        (["--task", "ironbeat.ecko", "--cron", "@daily"], "ironbeat.echo"),
        (["--task", "ironbeat.echo", "--cron", "@daily"], "message"),
        ([*ECHO, "--cron", "@daily", "--kwargs", '{"louder": true}'], "louder"),
        (["--task", "ironbeat.echo", "--cron", "@daily", "--args", "[hello]"], "JSON"),
        (["--task", "ironbeat.echo", "--cron", "@daily", "--args", '{"a": 1}'], "args"),
        ([*ECHO, "--cron", "@daily", "--queue", "no-such-queue"], "no-such-queue"),
        ([*ECHO, "--cron", "@daily", "--priority", "11"], "priority"),
        ([*ECHO, "--cron", "@daily", "--jitter", "soon"], "jitter"),
        ([*ECHO, "--cron", "@daily", "--catch-up", "maybe"], "latest"),
    ],
)
def test_bad_input_is_told_and_changes_nothing(run, options, told) -> None:
    assert told in run("schedule", "add", "x", *options, exit_status=ExitStatus.USAGE)
    assert run("schedule", "list", "--json") == []


def test_oversized_arguments_are_refused(run) -> None:
    large = ["--task", "ironbeat.echo", "--cron", "@daily", "--args", f'["{"x" * 300_000}"]']
    told = run("schedule", "add", "x", *large, exit_status=ExitStatus.USAGE)
    assert "args" in told and len(told) < 2_000
    assert run("schedule", "list", "--json") == []


def test_a_taken_name_is_refused(run) -> None:
    run("schedule", "add", "x", *ECHO, "--every", "5m")
    told = run("schedule", "add", "x", *ECHO, "--every", "9m", exit_status=ExitStatus.REFUSED)
    assert "schedule edit x" in told
    assert run("schedule", "show", "x", "--json")["expression"] == "5m"


@pytest.mark.parametrize(
    "command",
    [
        ["show"],
        ["next"],
        ["pause"],
        ["resume"],
        ["run"],
        ["edit", "--every", "5m"],
        ["remove", "--yes"],
        ["backfill", "--since", "1h"],
    ],
)
def test_an_unknown_name_is_not_found_and_the_one_meant_is_suggested(run, command) -> None:
    run("schedule", "add", "nightly-report", *ECHO, "--every", "5m")
    verb, *options = command
    told = run("schedule", verb, "nigthly-report", *options, exit_status=ExitStatus.NOT_FOUND)
    assert "Did you mean 'nightly-report'?" in told
    assert run("schedule", "show", "nightly-report", "--json")["edited_at"] is not None


def test_pausing_several_is_all_or_nothing(run) -> None:
    for name in ("a", "b"):
        run("schedule", "add", name, *ECHO, "--every", "5m")
    run("schedule", "pause", "a", "c", exit_status=ExitStatus.NOT_FOUND)
    assert names(run("schedule", "list", "--paused", "--json")) == []
    run("schedule", "pause", "a", "b")
    assert names(run("schedule", "list", "--paused", "--json")) == ["a", "b"]
    run("schedule", "resume", "b")
    assert names(run("schedule", "list", "--active", "--json")) == ["b"]


def test_an_edit_holds_against_imports_until_it_is_undone(run) -> None:
    assert PRUNE in run("schedule", "import", "--json")["created"]
    assert PRUNE in run("schedule", "import", "--json")["unchanged"]
    run("schedule", "edit", PRUNE, "--cron", "0 5 * * *")
    kept = run("schedule", "import", "--json")["kept"]
    assert kept[PRUNE]["expression"] == ["0 5 * * *", "10 4 * * *"]
    shown = run("schedule", "show", PRUNE)
    assert "'0 5 * * *'; declared '10 4 * * *'" in shown
    assert "pause" in run("schedule", "remove", PRUNE, "--yes", exit_status=ExitStatus.REFUSED)
    run("schedule", "edit", PRUNE, "--restore")
    assert run("schedule", "show", PRUNE, "--json")["expression"] == "10 4 * * *"
    assert PRUNE in run("schedule", "import", "--json")["unchanged"]


def test_an_edit_that_says_nothing_or_is_wrong_changes_nothing(run) -> None:
    run("schedule", "add", "x", *ECHO, "--every", "5m", "--queue", "default")
    before = run("schedule", "show", "x", "--json")
    run("schedule", "edit", "x", exit_status=ExitStatus.USAGE)
    run("schedule", "edit", "x", "--restore", "--every", "1m", exit_status=ExitStatus.USAGE)
    run("schedule", "edit", "x", "--cron", "never", exit_status=ExitStatus.USAGE)
    run("schedule", "edit", "x", "--args", "[]", exit_status=ExitStatus.USAGE)
    assert run("schedule", "show", "x", "--json")["updated_at"] == before["updated_at"]
    assert run("schedule", "edit", "x", "--queue", "", "--json")["queue"] is None


def test_running_one_now_makes_a_run_and_leaves_its_times(run) -> None:
    run("schedule", "add", "x", *ECHO, "--cron", "@daily")
    before = run("schedule", "show", "x", "--json")
    id = run("schedule", "run", "x", "--json")["id"]
    found = run("task", id, "--json")
    assert (found["schedule"], found["task"]) == ("x", "ironbeat.echo")
    after = run("schedule", "show", "x", "--json")
    assert after["next_fire_at"] == before["next_fire_at"]
    assert [each["id"] for each in after["runs"]] == [id]
    told = run(
        "schedule", "run", "x", "--wait", "--timeout", "0.3", exit_status=ExitStatus.TIMED_OUT
    )
    assert "ironbeat task" in told


def test_backfilling_makes_each_slot_once(run) -> None:
    run("schedule", "add", "x", *ECHO, "--cron", "0 * * * *", "--overlap", "allow")
    today = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    since, until = (today - timedelta(hours=5)).isoformat(), today.isoformat()
    period = ["--since", since, "--until", until]
    slots = run("schedule", "backfill", "x", *period, "--dry-run", "--json")["slots"]
    assert len(slots) == 5 and run("runs", "--json") == []
    assert len(run("schedule", "backfill", "x", *period, "--json")["runs"]) == 5
    assert run("schedule", "backfill", "x", *period, "--json")["runs"] == []
    told = run("schedule", "backfill", "x", "--since", "30d", "--limit", "9", exit_status=2)
    assert "more than 9" in told
    future = (today + timedelta(days=1)).isoformat()
    run("schedule", "backfill", "x", "--since", future, exit_status=ExitStatus.USAGE)
    assert len(run("runs", "--json")) == 5


def test_what_cannot_import_is_told_not_thrown(run, monkeypatch) -> None:
    from ironbeat import housekeeping
    from ironbeat.app import current_app

    broken = replace(housekeeping.workload, tasks=("ironbeat.housekeeping", "no_such_tasks"))
    monkeypatch.setattr(housekeeping, "workload", broken)
    current_app.cache_clear()
    told = run("schedule", "import", exit_status=ExitStatus.SETTINGS)
    assert "no_such_tasks" in told
    current_app.cache_clear()


def test_the_schedules_of_an_adopted_application_come_in_with_its_tasks(
    run, monkeypatch, settings
) -> None:
    from ironbeat.settings import get_settings

    monkeypatch.syspath_prepend(str(PROJECTS / "orders"))
    monkeypatch.setenv("ORDERS_BROKER", settings.broker_url.get_secret_value())
    monkeypatch.setenv("ORDERS_BACKEND", settings.result_backend.get_secret_value())
    monkeypatch.setenv("IRONBEAT_APP", "orders.app:app")
    get_settings.cache_clear()
    created = run("schedule", "import", "--json")["created"]
    assert {"collect-payments", "close-shop", PRUNE} <= set(created)
    found = run("schedule", "show", "report", "--json")
    assert (found["expression"], found["timezone"]) == ("30 3 * * mon-fri", "Europe/Berlin")
    assert (found["task"], found["expires_seconds"]) == ("orders.report", 600)
    assert run("schedule", "import", "--json")["created"] == []
    assert run("schedule", "run", "remind", "--json")["schedule"] == "remind"
    sys.modules.pop("orders.app")


def test_the_tables_of_django_celery_beat_are_taken_over_once(run, tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'django.sqlite'}"
    with sqlite3.connect(tmp_path / "django.sqlite") as django:
        django.executescript(DJANGO_TABLES)
    told = run("schedule", "import", "--django", "--url", url, "--dry-run", "--json")
    assert told["added"] == ["clean-up", "unknown"]
    assert run("schedule", "list", "--json") == []
    told = run("schedule", "import", "--django", "--url", url, "--json")
    assert told["notes"]["unknown"] == ["no task is named 'shop.gone' here"]
    assert run("schedule", "show", "clean-up", "--json")["described"] == "every 5 minutes"
    again = run("schedule", "import", "--django", "--url", url, "--json")
    assert (again["added"], again["present"]) == ([], ["clean-up", "unknown"])


def test_a_database_without_those_tables_is_told(run) -> None:
    told = run("schedule", "import", "--django", exit_status=ExitStatus.USAGE)
    assert "django_celery_beat_periodictask" in told
    run("schedule", "import", "--dry-run", exit_status=ExitStatus.USAGE)
