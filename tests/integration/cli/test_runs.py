import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import psycopg
import pytest

from ironbeat.cli.failures import ExitStatus


@pytest.fixture
def runs(settings):
    """Runs of three kinds: one that failed at 03:20 today's zone time, one that waits, one that
    runs and reports."""
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute(
            """
            INSERT INTO ironbeat.run_history (id, task, state, schedule_name, worker, attempt,
              created_at, started_at, ended_at, error, traceback, argsrepr, kwargsrepr) VALUES
              ('aaaaaa-failed', 'shop.close', 'failed', 'nightly', 'worker-01@h', 3,
               '2026-03-10 03:20+08', '2026-03-10 03:20:01+08', '2026-03-10 03:20:03+08',
               E'ValueError: no [red]customer[/red]\nsecond line',
               'Traceback (most recent call last): …', '(7,)', '{}'),
              ('aaaaaa-passed', 'shop.open', 'succeeded', NULL, 'worker-01@h', 1,
               '2026-03-10 05:20+08', '2026-03-10 05:20:01+08', '2026-03-10 05:20:03+08',
               NULL, NULL, '()', '{}');
            INSERT INTO ironbeat.runs (id, task, state, created_at, started_at, attempt, progress,
              lease_id, worker) VALUES
              ('bbbbbb-waits', 'shop.open', 'pending', now(), NULL, 0, NULL, NULL, NULL),
              ('cccccc-runs', 'shop.open', 'running', now(), now(), 1,
               '{"progress": 40, "current_step": "counting"}', 'L', 'worker-02@h');
            """
        )


def ids(found):
    return [each["id"] for each in found]


def test_what_happened_between_three_and_four(runs, run) -> None:
    period = ["--since", "2026-03-10T03:00+08:00", "--until", "2026-03-10T04:00+08:00"]
    assert ids(run("runs", *period, "--json")) == ["aaaaaa-failed"]
    shown = run("runs", *period)
    assert "ValueError: no [red]customer[/red]" in shown
    assert "second line" not in shown


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--state", "failed"], ["aaaaaa-failed"]),
        (["--state", "live"], ["cccccc-runs", "bbbbbb-waits"]),
        (["--state", "running", "--state", "failed"], ["cccccc-runs", "aaaaaa-failed"]),
        (["--state", "unsuccessful"], ["aaaaaa-failed"]),
        (["--schedule", "nightly"], ["aaaaaa-failed"]),
        (["--task", "shop.open", "--until", "2026-03-11"], ["aaaaaa-passed"]),
        (["--worker", "worker-02@h"], ["cccccc-runs"]),
        (["--text", "customer"], ["aaaaaa-failed"]),
        (["--limit", "1"], ["cccccc-runs"]),
    ],
)
def test_runs_are_found_by_what_is_known_of_them(runs, run, filters, expected) -> None:
    assert sorted(ids(run("runs", *filters, "--json"))) == sorted(expected)


def test_nothing_found_is_an_answer(runs, run) -> None:
    assert run("runs", "--task", "no.such", "--json") == []
    assert "No run meets" in run("runs", "--task", "no.such")


def test_a_state_that_is_none_is_refused_with_those_that_are(run) -> None:
    assert "succeeded" in run("runs", "--state", "finished", exit_status=ExitStatus.USAGE)


def test_one_run_is_shown_with_its_traceback(runs, run) -> None:
    shown = run("task", "aaaaaa-failed")
    for part in ("shop.close", "(7,) {}", "Traceback (most recent call last)", "2.0 s", "nightly"):
        assert part in shown, part
    told = run("task", "cccccc-runs", "--json")
    assert told["progress"] == {"progress": 40, "current_step": "counting"}
    assert "message" not in told


def test_the_beginning_of_an_id_is_enough_while_no_other_shares_it(runs, run) -> None:
    assert run("task", "bbbbbb", "--json")["id"] == "bbbbbb-waits"
    told = run("task", "aaaaaa", "--json", exit_status=ExitStatus.USAGE)
    assert "ambiguous: aaaaaa-failed, aaaaaa-passed" in told["error"]


@pytest.mark.parametrize("id", ["no-such-run", "bbbb", "%", "bbbbbb%"])
def test_an_unknown_id_is_not_found(runs, run, id) -> None:
    assert repr(id) in run("task", id, exit_status=ExitStatus.NOT_FOUND)


def test_the_monitor_prints_a_page_into_a_pipe_and_lines_as_json(runs, run) -> None:
    page = run("monitor", "--interval", "0.2")
    assert "Newest runs" in page and "cccccc-runs" in page and "Queues" in page
    program = [sys.executable, "-c", "from ironbeat.cli import main; main()"]
    ran = subprocess.run(
        [*program, "monitor-cmd", "--interval", "0.2", "--count", "2", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [set(ids(line["newest"])) >= {"cccccc-runs"} for line in lines] == [True, True]


def test_the_monitor_on_a_terminal_is_a_screen_with_a_line_for_each_run(runs) -> None:
    parent, child = pty.openpty()
    # High enough for all that may be wrong on this machine, which stands above the runs.
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 150, 90, 0, 0))
    screen = subprocess.Popen(
        [sys.executable, "-c", "from ironbeat.cli import main; main()", "monitor", "--count", "4"],
        stdin=child,
        stdout=child,
        stderr=child,
        # What a parent exported, as readline does, is not this terminal's size.
        env={**os.environ, "TERM": "xterm", "LINES": "24", "COLUMNS": "80"},
    )
    os.close(child)
    shown = b""
    # Reading ends with an error when the other side is closed.
    with contextlib.suppress(OSError):
        while piece := os.read(parent, 65536):
            shown += piece
    os.close(parent)
    assert screen.wait(30) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    # Of a busy machine's first looks one may come too late to show anything but that.
    lines = [line for line in text.splitlines() if "aaaaaa-f" in line]
    assert 1 <= len(lines) <= 4, text
    line = lines[-1]
    assert "aaaaaa-failed" not in line and "close" in line and "…" in line
    assert "\x1b[?1049l" in shown.decode()


def test_the_monitor_outlives_a_database_that_is_down(settings, run, monkeypatch) -> None:
    from ironbeat.settings import get_settings

    monkeypatch.setenv("IRONBEAT_DATABASE_URL", "postgresql://127.0.0.1:1/x")
    get_settings.cache_clear()
    assert "PostgreSQL: connection refused" in run("monitor")


def test_a_run_that_waits_is_cancelled_and_an_ended_one_is_not(runs, run) -> None:
    told = run("cancel", "bbbbbb", "--reason", "not needed", "--json")
    assert told == {"id": "bbbbbb-waits", "state": "cancelled"}
    found = run("task", "bbbbbb-waits", "--json")
    assert (found["state"], found["reason"]) == ("cancelled", "not needed")
    refused = run("cancel", "aaaaaa-passed", exit_status=ExitStatus.REFUSED)
    assert "ended already: succeeded" in refused
    run("cancel", "no-such-run", exit_status=ExitStatus.NOT_FOUND)


def test_a_running_run_is_asked_to_stop(runs, run) -> None:
    assert run("cancel", "cccccc-runs", "--json")["state"] == "stopping"
    assert run("task", "cccccc-runs", "--json")["cancel_requested_at"] is not None


def test_a_trial_that_nobody_answers_ends_in_time_and_leaves_nothing_behind(settings, run) -> None:
    told = run("test", "--timeout", "0.5", "--json", exit_status=ExitStatus.TIMED_OUT)
    assert "no answer within 500 ms; the task is now cancelled" in told["error"]
    assert run("runs", "--state", "live", "--json") == []


def test_a_trial_by_an_unknown_queue_names_those_there_are(settings, run) -> None:
    told = run("test", "--queue", "no-such-queue", exit_status=ExitStatus.USAGE)
    assert "'no-such-queue'" in told and "default" in told
    assert run("runs", "--json") == []
