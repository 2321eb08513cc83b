"""What makes each alert fire: its real cause, and how that ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis

from tests.faults.suite import ROOT, Suite

Change = Callable[[Suite], None]


@dataclass(frozen=True)
class Cause:
    """``cause`` makes ``alerts`` arrive; ``cure`` ends them. ``until_it_shows``: how long the cause
    has to last before it is one (the limit itself, where that is a length of time)."""

    name: str
    alerts: tuple[str, ...]
    cause: Change
    cure: Change
    until_it_shows: float = 0.0


def hold(*groups: str) -> Change:
    """Stop programs in order, and keep them stopped."""

    def change(suite: Suite) -> None:
        for group in groups:
            suite.hold(group)

    return change


def release(*groups: str) -> Change:
    """Start programs that were held."""

    def change(suite: Suite) -> None:
        for group in groups:
            suite.release(group)

    return change


def both(*changes: Change) -> Change:
    """One after the other."""

    def change(suite: Suite) -> None:
        for each in changes:
            each(suite)

    return change


def nothing(suite: Suite) -> None:
    """The cause ends by itself."""


def submit(task: str, *arguments: object, number: int = 1) -> Change:
    """Submit a task so many times, each committed to the ledger first."""
    code = (
        "import json, sys; from ironbeat import TaskManager, create_app;"
        "from ironbeat.dispatch.manager import Submit;"
        "task, args, number = json.loads(sys.argv[1]);"
        "TaskManager(create_app()).submit_many([Submit(task, args) for _ in range(number)])"
    )
    return _python(code, json.dumps([task, arguments, number]))


def ironbeat(*words: str) -> Change:
    """A command, as the runbooks have it."""
    return _python("from ironbeat.cli import main; main()", *words)


def _python(code: str, *arguments: str) -> Change:
    def change(suite: Suite) -> None:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=suite.environment, cwd=ROOT, check=False, timeout=120, capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    return change


def redis(*command: str) -> Change:
    """A command to the broker."""

    def change(suite: Suite) -> None:
        with Redis.from_url(suite.settings.broker_url.get_secret_value()) as client:
            client.execute_command(*command)

    return change


def nearly_full(suite: Suite) -> None:
    """Leave the broker a tenth more memory than it uses."""
    with Redis.from_url(suite.settings.broker_url.get_secret_value()) as client:
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", str(int(used * 1.1)))


def stop_in_its_tracks(group: str) -> Change:
    """SIGSTOP: nobody continues it but its watchdog, which ends it."""

    def change(suite: Suite) -> None:
        suite.kill(group, signal.SIGSTOP)

    return change


def late_beat(suite: Suite) -> None:
    """Beat stands still over the time of a schedule, and goes on."""
    suite.kill("beat", signal.SIGSTOP)
    time.sleep(15)
    suite.kill("beat", signal.SIGCONT)


FAIL = submit("counting.work", "this is no number", number=60)
# What is quick to show: in CI.
QUICK = (
    Cause("tasks that fail", ("high_error_rate",), FAIL, nothing),
    Cause(
        "a task that kills its worker",
        ("dead_letters", "lease_lost"),
        submit("counting.segfault"),
        ironbeat("dead", "drop", "--all", "--yes"),
    ),
    Cause(
        "no worker, and a full queue",
        ("celery_worker_down", "high_queue_length", "consumer_stalled"),
        both(hold("worker"), submit("counting.work", 0, number=1100)),
        release("worker"),
    ),
    Cause(
        "rubbish in the queue",
        ("unreadable_messages",),
        redis("LPUSH", "counting", "this is no message"),
        redis("DEL", "ironbeat.unreadable"),
    ),
    Cause(
        "a broker that may lose messages, and has little memory",
        ("broker_unsafe", "broker_memory"),
        both(redis("CONFIG", "SET", "appendonly", "no"), nearly_full),
        both(redis("CONFIG", "SET", "maxmemory", "0"), redis("CONFIG", "SET", "appendonly", "yes")),
    ),
    Cause("no broker", ("store_down", "fallback_active"), hold("redis"), release("redis")),
    Cause("no API", ("api_down",), hold("api"), release("api")),
)
#: A worker's ceiling in the suite of these tests, and what a task takes that comes close to it.
CEILING_MB, MUCH_MB = 600, 500
# What takes minutes, as the limit itself is a length of time.
SLOW = (
    Cause(
        "no beat",
        ("no_tick", "beat_response", "schedule_missed"),
        hold("beat"),
        release("beat"),
        until_it_shows=60,
    ),
    Cause("a beat that stands still for a while", ("fires_late",), late_beat, nothing),
    Cause(
        "a worker that stands still",
        ("worker_silent", "processes_stuck"),
        stop_in_its_tracks("worker"),
        nothing,
        until_it_shows=75,
    ),
    Cause(
        "nobody publishes what was submitted",
        ("outbox_age",),
        both(hold("beat", "worker", "redis"), submit("counting.work", 0, number=5)),
        release("redis", "worker", "beat"),
        until_it_shows=65,
    ),
    Cause(
        "work that waits, and a queue that is longer than normal",
        ("message_waits", "queue_length"),
        both(hold("worker"), submit("counting.work", 0, number=20)),
        release("worker"),
        until_it_shows=300,
    ),
    Cause(
        "a task that needs much memory",
        ("memory_high", "worker_memory"),
        submit("counting.fill", MUCH_MB, 150),
        nothing,
    ),
    Cause("runs that failed within the hour", ("success_rate",), FAIL, nothing),
    Cause(
        "a long task",
        ("task_running_long", "mean_run_time"),
        submit("counting.work", 640),
        nothing,
        until_it_shows=645,
    ),
)
