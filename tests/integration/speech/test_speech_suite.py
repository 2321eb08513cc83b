"""Through broker, worker and command line: submitted, followed step by step, stored, shown."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.processes import Program, wait_for

from ironbeat.app import current_app
from ironbeat.settings import Settings, get_settings
from ironbeat.workloads.speech import TaskManager, examples, monitor, store

PROGRAM = [sys.executable, "-c", "from ironbeat.cli import main; main()"]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def suite(module_settings: Settings) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRONBEAT_WORKLOADS", "speech")
        get_settings.cache_clear()
        current_app.cache_clear()
        yield get_settings()
    current_app.cache_clear()
    get_settings.cache_clear()


@pytest.fixture(scope="module")
def worker(suite: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    log = tmp_path_factory.mktemp("speech") / "worker.log"
    started = Program([*PROGRAM, "speech", "worker", "--name", "speech"], log, dict(os.environ))
    wait_for(lambda: monitor.get_worker_stats(), seconds=120, program=started)
    yield started
    started.stop()


def length(queue: str) -> int:
    """How many wait in a queue; a server that is slow to answer is asked again."""
    found: list[int] = []

    def asked() -> bool:
        with contextlib.suppress(ConnectionError):
            found.append(monitor.get_queue_length(queue))
        return bool(found)

    wait_for(asked, seconds=60)
    return found[0]


def ironbeat(*arguments: str, status: int = 0) -> Any:
    done = subprocess.run(
        [*PROGRAM, "speech", *arguments], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def test_without_a_worker_what_is_submitted_waits_in_its_queue_and_can_be_purged(suite) -> None:
    async def ask() -> str:
        return await TaskManager().submit_audio_analysis(practice_record_id=examples.record())

    import asyncio

    id = asyncio.run(ask())
    assert length("ai_analysis") == 1
    assert length("health") == 0
    assert monitor.get_worker_stats() == {}
    TaskManager().submit("health_check_task")
    assert monitor.purge_queue("ai_analysis") == 1
    # That one, and no other.
    assert length("health") == 1
    assert TaskManager().get_task_status(id)["state"] == "cancelled"
    assert "1 messages" in ironbeat("purge", "--queue", "health", "--yes")
    with pytest.raises(LookupError, match="ai_analysis"):
        monitor.get_queue_length("nowhere")


def test_an_analysis_overtakes_what_was_submitted_before_it(suite, tmp_path: Path) -> None:
    manager = TaskManager()
    ids = [
        manager.submit("health_check_task"),
        manager.submit("cleanup_old_analyses_task"),
        manager.submit("analyze_audio_task", kwargs={"practice_record_id": examples.record()}),
    ]
    first = [*PROGRAM, "speech", "worker", "--name", "first"]
    started = Program(first, tmp_path / "first.log", dict(os.environ))
    try:
        wait_for(
            lambda: all(manager.status(id).state == "succeeded" for id in ids),
            seconds=120,
            program=started,
        )
    finally:
        started.stop()
    begun = [manager.status(id).started_at for id in ids]
    assert begun[2] < begun[1] < begun[0]


def test_an_analysis_runs_end_to_end_and_tells_its_steps(suite, worker, monkeypatch) -> None:
    manager = TaskManager()
    seen: list[tuple[int, str]] = []
    practice = examples.record()

    async def follow() -> dict[str, Any]:
        id = await manager.submit_audio_analysis(
            practice_record_id=practice,
            analysis_params={"model_version": "v2.1", "analysis_type": "full"},
        )
        deadline = time.monotonic() + 120
        while (status := manager.get_task_status(id))["state"] != "succeeded":
            assert time.monotonic() < deadline and status["state"] != "failed", status
            if status["current_step"]:
                seen.append((status["progress"], status["current_step"]))
            time.sleep(0.005)
        return status

    import asyncio

    status = asyncio.run(follow())
    assert status["progress"] == 100 and status["result"]["status"] == "completed"
    assert seen and seen == sorted(seen, key=lambda step: step[0])
    stored = store.latest(practice)
    assert stored is not None
    assert stored["overall_score"] == pytest.approx(status["result"]["overall_score"])
    shown = ironbeat("show", str(practice), "--json")
    assert shown["overall_score"] == stored["overall_score"]
    told = ironbeat("task", status["task_id"], "--json")
    assert told["state"] == "succeeded"


def test_the_examples_run_from_the_first_to_the_last(suite, worker) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ironbeat.workloads.speech.examples"],
        capture_output=True, text=True, env=dict(os.environ), timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'status': 'completed'" in done.stdout
    assert "cancelled" in done.stdout and "speech@" in done.stdout


def test_a_health_task_travels_its_queue(suite, worker) -> None:
    manager = TaskManager()
    id = manager.submit("health_check_task")
    found = manager.result(id, timeout=120)
    assert found["status"] == "healthy" and "hama/" in found["engine"]
    run = manager.status(id)
    assert (run.queue, run.priority) == ("health", 9)
    assert ironbeat("test", "--message", "早安", "--timeout", "60", "--json")["queue"] == "health"


def test_the_owners_commands_answer(suite, worker) -> None:
    # No beat runs here, which is the status that it tells.
    names = {each["name"] for each in ironbeat("status", "--json", status=1)["queues"]}
    assert {"ai_analysis", "maintenance", "health"} <= names
    assert "queues" in ironbeat("monitor", "--count", "1")
    assert "queues" in ironbeat("monitor-cmd", "--count", "1")
    for command in ("worker", "beat", "flower", "purge", "cancel"):
        assert "Usage" in ironbeat(command, "--help")
    [one] = wait_for(monitor.get_worker_stats, seconds=60).values()
    assert sorted(one["queues"]) == ["ai_analysis", "health", "maintenance"]
    assert one["rss_mb"] < 512


def test_tasks_that_mostly_wait_run_on_eventlet(suite, worker, tmp_path: Path) -> None:
    pytest.importorskip("eventlet", reason="the extra eventlet is not installed")
    # This one alone consumes while the other is stopped.
    worker.kill(signal.SIGSTOP)
    queues = ("--queues", "maintenance", "--concurrency", "10")
    arguments = [*PROGRAM, "speech", "worker", "--pool", "eventlet", "--name", "green", *queues]
    green = Program(arguments, tmp_path / "green.log", dict(os.environ))
    try:
        manager = TaskManager()
        ids = [manager.submit("cleanup_old_analyses_task") for _ in range(5)]
        wait_for(
            lambda: all(manager.status(id).state == "succeeded" for id in ids),
            seconds=120,
            program=green,
        )
        assert {(manager.status(id).worker or "").split("@")[0] for id in ids} == {"green"}
    finally:
        worker.kill(signal.SIGCONT)
        green.stop()


def test_a_recording_is_judged_by_hand(suite, tmp_path: Path) -> None:
    from tests.speech import file, spoken

    recording, picture = tmp_path / "a.flac", tmp_path / "a.svg"
    recording.write_bytes(file(spoken("the red rabbit runs"), format="FLAC"))
    text = ("--text", "the red rabbit runs")
    found = ironbeat("analyze", str(recording), *text, "--picture", str(picture), "--json")
    assert found["overall_score"] > 60 and picture.read_text().startswith("<svg")
    (tmp_path / "b.wav").write_bytes(b"no sound")
    ironbeat("analyze", str(tmp_path / "b.wav"), *text, status=6)
