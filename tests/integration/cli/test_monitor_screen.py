"""`ironbeat monitor` on a terminal, with the keys an operator presses."""

import json
import signal
import socket
import sys
import time

import psycopg
import pytest
import redis
from tests.terminal import Screen

MONITOR = [
    sys.executable,
    "-c",
    "from ironbeat.cli import main; main()",
    "monitor",
    "--interval",
    "0.5",
]
UP, DOWN, PAGE_DOWN, BACK_TAB = "\x1b[A", "\x1bOB", "\x1b[6~", "\x1b[Z"
ESCAPE = "\x1b"


@pytest.fixture
def suite(settings):
    """A worker that runs one run and had two; a queue in which one more waits, and a message."""
    deep = "\n".join(f"  step {number} of the traceback" for number in range(80))
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute(
            """
            INSERT INTO ironbeat.leases (id, kind, name, host, pid, queues, expires_at, info) VALUES
              ('L', 'worker', 'worker-07@here', 'here', 4711, '{orders}', now() + interval '1 h',
               '{"concurrency": 1, "rss_mb": 90, "consumed": 12}');
            INSERT INTO ironbeat.runs (id, task, state, queue, attempt, started_at, progress,
              lease_id, worker, created_at) VALUES
              ('cccccc-runs', 'shop.count', 'running', 'orders', 1, now(),
               '{"progress": 40, "current_step": "counting"}', 'L', 'worker-07@here', now()),
              ('bbbbbb-waits', 'shop.ship', 'pending', 'orders', 0, NULL, NULL, NULL, NULL, now())
            """
        )
        connection.execute(
            """
            INSERT INTO ironbeat.run_history (id, task, state, queue, schedule_name, worker,
              attempt, created_at, started_at, ended_at, error, traceback, argsrepr, kwargsrepr,
              attempts) VALUES
              ('aaaaaa-failed', 'shop.close', 'failed', 'orders', 'nightly', 'worker-07@here', 2,
               '2026-03-10 03:20+08', '2026-03-10 03:20:01+08', '2026-03-10 03:20:03+08',
               E'ValueError: no \\x1b[31mcustomer', %s, '(7,)', '{}',
               '[{"attempt": 1, "worker": "worker-06@here", "error": "OSError: away",
                  "started_at": "2026-03-09T19:19:01+00:00",
                  "ended_at": "2026-03-09T19:19:02+00:00"}]'),
              ('dddddd-passed', 'shop.open', 'succeeded', 'orders', NULL, 'worker-07@here', 1,
               '2026-03-10 02:20+08', '2026-03-10 02:20:01+08', '2026-03-10 02:20:09+08',
               NULL, NULL, '()', '{}', NULL)
            """,
            ["Traceback (most recent call last):\n" + deep],
        )
    headers = {"id": "eeeeee-message", "task": "shop.mail", "argsrepr": "(9,)"}
    with redis.Redis.from_url(settings.broker_url.get_secret_value()) as client:
        client.lpush("orders", json.dumps({"headers": headers, "properties": {}}))


def test_keys_find_sort_open_and_leave(suite):
    with Screen(MONITOR, lines=50, columns=200) as screen:
        screen.until("▸ Queues", "Processes  1", "Runs  4", "worker-07@here", "aaaaaa-failed")

        # The runs, those that failed, one of them with all that is known, and back.
        screen.press("\t\t")
        screen.until("▸ Runs")
        screen.press("/FAIL")
        screen.until("filter: FAIL", "Runs  1 of 4", "aaaaaa-failed", without=["bbbbbb-waits"])
        screen.press("\r")
        screen.until("filter: FAIL\n", without=["Enter keep"])
        screen.press("\r")
        run = screen.until("› run aaaaaa-failed", "(7,) {}", "earlier attempts", "OSError: away")
        # What a task put into its error is no command to the terminal.
        assert "ValueError: no ·[31mcustomer" in run
        for part in ("2026-03-10 03:20:01", "2026-03-10 03:20:03", "worker-07@here", "step 3 of"):
            assert part in run, part
        assert "step 79 of" not in run
        screen.press("G")
        screen.until("step 79 of", without=["(7,) {}"])
        screen.press(ESCAPE)
        screen.until("▸ Runs  1\n", "filter: FAIL")
        screen.press(ESCAPE)
        screen.until("▸ Runs  4", "bbbbbb-waits", without=["filter: "])

        # Sorted by how long they took, then the other way round.
        screen.press("s")
        took = screen.until("Runs  4  by took")
        assert took.index("dddddd-passed") < took.index("aaaaaa-failed")
        assert took.index("aaaaaa-failed") < took.index("bbbbbb-waits")
        screen.press("r")
        took = screen.until("by took reversed")
        assert took.index("aaaaaa-failed") < took.index("dddddd-passed")

        # A worker, what it runs and ran; from there a run, with its progress.
        screen.press(BACK_TAB + "\r")
        worker = screen.until("› process worker-07@here", "▸ Running  1", "Latest runs  2")
        assert worker.index("cccccc-runs") < worker.index("aaaaaa-failed")
        screen.press("\r")
        screen.until("› run cccccc-runs", '{"progress": 40, "current_step": "counting"}')
        screen.press("bb")
        screen.until("▸ Processes  1")

        # A queue: what of it runs and what waits, in the broker and in the ledger.
        screen.press(BACK_TAB + "G" + UP + DOWN + "/orders\r\r")
        queue = screen.until("› queue orders", "▸ Running  1", "Waiting  2")
        assert queue.index("eeeeee-message") < queue.index("bbbbbb-waits")
        screen.press("\t" + PAGE_DOWN + UP + "\r")
        screen.until("› run eeeeee-message", "The ledger does not have it")
        screen.press("?")
        screen.until("open the selected queue, process, run or schedule")
        screen.press("?q")
        assert screen.ended() == 0
        assert screen.restored


def test_a_pause_holds_the_screen(suite, settings):
    with Screen(MONITOR) as screen:
        screen.until("Runs  4")
        screen.press("p")
        screen.until("paused")
        with psycopg.connect(settings.database_url.get_secret_value()) as connection:
            connection.execute(
                "INSERT INTO ironbeat.runs (id, task, state) VALUES ('ffffff-new', 't', 'pending')"
            )
        screen.press("\t\t\r")
        # Opening reads what is opened all the same.
        screen.until("› run cccccc-runs", "shop.count")
        screen.press(ESCAPE)
        assert "Runs  4" in screen.until("▸ Runs", "paused")
        screen.press("p")
        screen.until("Runs  5", "ffffff-n", without=["paused"])
        screen.press("q")
        assert screen.ended() == 0


def test_the_screen_is_as_large_as_its_terminal_is_now(suite):
    with Screen(MONITOR, LINES="24", COLUMNS="80") as screen:
        screen.until("aaaaaa-f")
        assert len(screen.frame.splitlines()) == 40
        screen.resize(30, 170)
        screen.until("aaaaaa-failed")
        assert len(screen.frame.splitlines()) == 30
        screen.press("q")
        assert screen.ended() == 0


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        (lambda screen: screen.press("\x03"), 0),
        (lambda screen: screen.signal(signal.SIGTERM), -signal.SIGTERM),
        (lambda screen: screen.signal(signal.SIGHUP), -signal.SIGHUP),
        (lambda screen: screen.press("\x1c"), -signal.SIGQUIT),
    ],
    ids=["Ctrl-C", "SIGTERM", "SIGHUP", "Ctrl-backslash"],
)
def test_the_terminal_is_as_before_however_it_ends(suite, ends, code):
    with Screen(MONITOR) as screen:
        screen.until("▸ Queues")
        assert not screen.restored
        ends(screen)
        assert screen.ended() == code
        assert screen.restored


def test_the_terminal_is_as_before_after_an_error(suite):
    with Screen(MONITOR, IRONBEAT_TIMEZONE="Mars/Olympus") as screen:
        assert screen.ended() == 5
        assert "Mars/Olympus" in screen.shown
        assert screen.shown.rfind("\x1b[?1049h") >= 0
        assert screen.restored


def test_an_encoding_that_lacks_the_bars_does_not_end_it(suite):
    with Screen(MONITOR, PYTHONIOENCODING="ascii") as screen:
        screen.until("? Queues", "orders")
        screen.press("q")
        assert screen.ended() == 0


def test_control_z_gives_the_terminal_back_until_it_goes_on(suite):
    with Screen(MONITOR) as screen:
        screen.until("▸ Queues")
        screen.press("\x1a")
        screen.stopped()
        assert screen.restored
        screen.shown = ""
        screen.signal(signal.SIGCONT)
        screen.press("\t")
        screen.until("▸ Processes")
        screen.press("q")
        assert screen.ended() == 0
        assert screen.restored


def test_without_a_keyboard_it_is_a_screen_and_takes_no_keys(suite):
    shell = ["sh", "-c", 'exec "$@" </dev/null', "sh", *MONITOR, "--count", "2"]
    with Screen(shell) as screen:
        screen.until("aaaaaa-f", "Ctrl-C ends", without=["? help"])
        assert screen.ended() == 0
        assert screen.restored


def test_keys_are_obeyed_while_no_server_answers(settings):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://x@127.0.0.1:{silent.getsockname()[1]}/x"
        with Screen(MONITOR, IRONBEAT_DATABASE_URL=url) as screen:
            screen.until("reading …")
            screen.press("?")
            screen.until("open the selected queue, process, run or schedule")
            screen.press("?")
            screen.until("PostgreSQL: ", "▸ Queues")
            # In the middle of the next look, which would go on for seconds.
            screen.press("q")
            asked = time.monotonic()
            assert screen.ended() == 0
            assert time.monotonic() - asked < 2
            assert screen.restored
