"""Flower's history survives its restart, in order or by force, and its memory is bounded."""

from __future__ import annotations

import base64
import json
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.processes import Program, wait_for, worker

from ironbeat import TaskManager, create_app

# Three times a program that imports much, on machines that do other work as well.
pytestmark = pytest.mark.timeout(300)

AUTH = base64.b64encode(b"admin:s3cret-word").decode()


@pytest.fixture
def working(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "admin:s3cret-word")
    monkeypatch.setenv("IRONBEAT_WORKLOADS", "marketplace")
    with worker("ironbeat", tmp_path / "worker.log") as started:
        yield started


def flower(log: Path, **environment: str) -> tuple[Program, str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    code = "from ironbeat.cli import main; main()"
    started = Program([sys.executable, "-c", code, "flower", "--port", str(port)], log, environment)
    address = f"http://127.0.0.1:{port}"
    wait_for(lambda: ask(f"{address}/api/tasks") is not None, seconds=60, program=started)
    return started, address


def ask(url: str, auth: str | None = AUTH) -> Any:
    request = urllib.request.Request(
        url, headers={"Authorization": f"Basic {auth}"} if auth else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise
        return None
    except OSError:
        return None


def run_some(number: int) -> set[str]:
    manager = TaskManager(create_app())
    ids = [manager.submit("ironbeat.echo", [f"{each}"]) for each in range(number)]
    for id in ids:
        manager.result(id, timeout=60)
    return set(ids)


def known(address: str) -> set[str]:
    return set(ask(f"{address}/api/tasks") or {})


def until_heard(address: str, program: Program, ids: set[str] | None = None) -> set[str]:
    """Tasks that Flower has heard of; it hears nothing before it has asked for events."""
    heard: set[str] = set()

    def some() -> bool:
        heard.update(run_some(2))
        return len(heard & known(address)) >= 4

    wait_for(some, seconds=60, program=program)
    return heard & known(address)


@pytest.mark.usefixtures("working")
def test_its_history_is_there_after_a_restart_and_after_a_kill(tmp_path: Path) -> None:
    log = tmp_path / "flower.log"
    first, address = flower(log)
    try:
        with pytest.raises(urllib.error.HTTPError):
            ask(f"{address}/api/tasks", auth=None)
        seen = until_heard(address, first)
    finally:
        first.stop()

    second, address = flower(log, FLOWER_STATE_SAVE_INTERVAL="500")
    try:
        assert seen <= known(address)
        with pytest.raises(urllib.error.HTTPError):
            ask(f"{address}/api/tasks", auth=None)
        seen |= until_heard(address, second)
        saved = tmp_path / "saved"
        database = next(Path(tmp_path).glob("flower.db*"))
        saved.write_text(str(database.stat().st_mtime_ns))
        wait_for(lambda: database.stat().st_mtime_ns > int(saved.read_text()) + 10**9, seconds=30)
        second.kill(signal.SIGKILL)
    finally:
        second.stop()

    third, address = flower(log)
    try:
        assert seen <= known(address)
    finally:
        third.stop()


@pytest.mark.usefixtures("working")
def test_it_remembers_no_more_than_it_may(tmp_path: Path) -> None:
    program, address = flower(tmp_path / "flower.log", FLOWER_MAX_TASKS="5")
    try:
        heard = until_heard(address, program)
        heard |= run_some(10)
        wait_for(lambda: len(known(address) & heard) == 5, seconds=30, program=program)
        assert len(known(address)) == 5
    finally:
        program.stop()
