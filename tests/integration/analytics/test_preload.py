"""Model and index in the memory of every worker process before the first question comes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.processes import wait_for

from ironbeat import TaskManager
from ironbeat.app import current_app
from ironbeat.settings import Settings
from ironbeat.workloads.analytics import sample, vectors

NAMES = "library.rvt_analytics.tasks"
PROGRAM = [sys.executable, "-c", "from ironbeat.cli import main; main()"]

pytestmark = pytest.mark.timeout(900)


class Workers:
    """Workers as supervisord starts them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, **names: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*PROGRAM, "worker", "--name", name],
                env=os.environ | names,
                stdout=log,
                stderr=log,
            )
        self.processes[f"{name}@{socket.gethostname()}"] = process
        return process

    def close(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def workers(settings: Settings, tmp_path: Path) -> Iterator[Workers]:
    current_app.cache_clear()
    made = Workers(tmp_path)
    yield made
    made.close()
    current_app.cache_clear()


def test_the_first_task_after_a_preload_finds_everything_loaded_in_every_process(
    workers: Workers, settings: Settings
) -> None:
    sample.load(scale=30, progress=lambda done, total: None)
    vectors.rebuild(role="user", min_length=5, force=False)
    for name in ("one", "two"):
        workers.start(name)
    workers.start("idle", IRONBEAT_WORKER_QUEUES="default")
    manager = TaskManager()
    ping = manager.app.control.ping
    wait_for(lambda: len(ping(timeout=10, limit=3)) == 3, seconds=240)

    host = socket.gethostname()
    serving = {f"one@{host}", f"two@{host}"}
    loading: dict[str, float] = {}
    for _ in range(5):
        # On a machine that is very busy, not all may answer the roll call in time.
        done = manager.result(manager.submit(f"{NAMES}.preload_vector_services"), timeout=200)
        for name, seconds in done["warmed"].items():
            loading.setdefault(name, seconds)
        if set(done["warmed"]) == serving and done["idle"]:
            break
    assert set(done["warmed"]) == serving
    assert (done["idle"], done["failed"], done["silent"]) == ([f"idle@{host}"], {}, 0)
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        pids = dict(connection.execute("SELECT process, pid FROM analytics.warm_processes"))
    assert pids == {name: workers.processes[name].pid for name in serving}

    spent: dict[str, list[float]] = defaultdict(list)
    for number in range(200):
        id = manager.submit(f"{NAMES}.find_similar_questions", [f"where is my order {number}?"])
        assert manager.result(id, timeout=60)
        run = manager.status(id)
        assert run.started_at and run.ended_at
        spent[run.worker or ""].append((run.ended_at - run.started_at).total_seconds())
        if set(spent) == serving and min(map(len, spent.values())) >= 10:
            break
    assert set(spent) == serving
    for name, each in spent.items():
        # Without a preload the first one would take as long as the loading did.
        assert each[0] < loading[name] / 2, (name, each, loading)
        assert each[0] < 3 * max(each[1:10]), (name, each)

    # A process that comes later within the day loads by itself.
    late = workers.start("late")
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        wait_for(
            lambda: connection.execute(
                "SELECT 1 FROM analytics.warm_processes WHERE pid = %s", [late.pid]
            ).fetchone(),
            seconds=240,
        )
