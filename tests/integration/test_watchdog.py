"""The watchdog among real workers and a real beat: what hangs ends, what is well does not."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from tests.hazards import APPS, Crew, application, crew, ended
from tests.processes import program, wait_for

from ironbeat import Settings, database, get_settings
from ironbeat.embedded import temporary_postgres
from ironbeat.migrations import upgrade
from ironbeat.runs import blackbox
from ironbeat.warden import judgement
from ironbeat.warden.watchdog import Watchdog

SCHEDULER = "ironbeat.schedules.beat:Scheduler"


@pytest.fixture(scope="module")
def hazards(
    module_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ModuleType, Crew]]:
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRONBEAT_LEASE_SECONDS", "4")
        patch.setenv("IRONBEAT_LEASE_RENEW_SECONDS", "0.5")
        patch.setenv("IRONBEAT_STALL_SECONDS", "4")
        patch.setattr(judgement, "OWN_SECONDS", 3.0)
        get_settings.cache_clear()
        module = application(patch, folder / "traces")
        with crew(folder, folder / "traces") as found:
            found.start("w0")
            yield module, found


@contextmanager
def watching() -> Iterator[Counter[str]]:
    """A watchdog on a thread; what it finds, by finding."""
    settings = get_settings()
    dog = Watchdog(settings, settings.boxes)
    dog.lease.start()
    found: Counter[str] = Counter()
    ending = threading.Event()

    def keep() -> None:
        while not ending.wait(0.5):
            found.update(each.finding for each in dog.look())

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ending.set()
        thread.join(20)
        dog.lease.stop()


def pid(crew: Crew) -> int:
    return crew.programs["w0"].pid


def test_a_task_that_holds_the_interpreter_past_its_limit_is_ended(
    hazards: tuple[ModuleType, Crew],
) -> None:
    module, crew = hazards
    with watching() as found:
        first = pid(crew)
        hung = module.deaf_for_ever.delay()
        run = ended(crew, module.app.ironbeat.ledger, hung.id)
        assert run.state == "failed" and "TimeLimitExceeded" in run.error
        assert run.crashes == 0 and crew.count("deaf_for_ever") == 1
        after = module.quick.delay("after").id
        assert ended(crew, module.app.ironbeat.ledger, after).state == "succeeded"
        assert found["hung"] >= 1 and pid(crew) != first


def test_a_long_task_that_holds_the_interpreter_within_its_limit_is_left_alone(
    hazards: tuple[ModuleType, Crew],
) -> None:
    """Longer than its lease and than the watchdog's patience, and executed once."""
    module, crew = hazards
    with watching() as found:
        first = pid(crew)
        id = module.deaf.delay(12, "long").id
        run = ended(crew, module.app.ironbeat.ledger, id)
        assert (run.state, run.attempt, run.crashes) == ("succeeded", 1, 0)
        assert crew.count("deaf-begin") == 1
        assert pid(crew) == first
        assert found["vouched"] > 3 and not found["silent"] and not found["hung"]


def test_a_stopped_worker_is_ended_and_one_that_waits_for_work_is_not(
    hazards: tuple[ModuleType, Crew],
) -> None:
    module, crew = hazards
    with watching() as found:
        first = pid(crew)
        time.sleep(6)
        assert pid(crew) == first and not found["silent"], "an empty queue is no reason"
        os.kill(first, signal.SIGSTOP)
        id = module.quick.delay("waiting").id
        assert ended(crew, module.app.ironbeat.ledger, id).state == "succeeded"
        assert found["silent"] >= 1 and pid(crew) != first


def test_a_killed_worker_s_death_is_told_at_once(
    hazards: tuple[ModuleType, Crew], module_settings: Settings
) -> None:
    module, crew = hazards
    with watching() as found:
        id = module.nap.delay(3, "moved").id
        crew.wait(lambda: any(what == "moved" for _, what, _, _ in crew.traces()))
        os.kill(pid(crew), signal.SIGKILL)
        assert ended(crew, module.app.ironbeat.ledger, id).crashes == 1
        wait_for(lambda: found["dead"] >= 1)
        boxes = get_settings().boxes
        wait_for(lambda: all(blackbox.alive(each) for each in blackbox.read(boxes)))


def test_a_beat_that_does_not_tick_is_ended(
    hazards: tuple[ModuleType, Crew], tmp_path: Path
) -> None:
    with program(
        "celery",
        "-A",
        "hazards",
        "beat",
        "-S",
        SCHEDULER,
        log=tmp_path / "beat.log",
        PYTHONPATH=str(APPS),
    ) as beat:
        boxes = get_settings().boxes
        wait_for(
            lambda: any(each.kind == "beat" for each in blackbox.read(boxes)), seconds=60,
            program=beat,
        )  # fmt: skip
        with watching() as found:
            time.sleep(6)
            assert beat.process.poll() is None and not found["stalled"]
            os.kill(beat.pid, signal.SIGSTOP)
            assert beat.process.wait(60) == -signal.SIGKILL
            assert found["stalled"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_database_that_is_stopped_for_long_costs_nobody_its_life(
    redis_url: str, tmp_path: Path
) -> None:
    """Worker and beat hang in the database, four times as long as the watchdog's patience."""
    with temporary_postgres() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "IRONBEAT_DATABASE_URL": server.url,
            "IRONBEAT_BROKER_URL": f"{redis_url}/1",
            "IRONBEAT_RESULT_BACKEND": f"{redis_url}/2",
            "IRONBEAT_STATE_DIR": str(tmp_path / "state"),
            "IRONBEAT_STALL_SECONDS": "4",
        }.items():
            patch.setenv(name, value)
        get_settings.cache_clear()
        upgrade(server.url, ())
        module = application(patch, tmp_path / "traces")
        beat_program = program(
            "celery", "-A", "hazards", "beat", "-S", SCHEDULER, log=tmp_path / "beat.log",
            PYTHONPATH=str(APPS),
        )  # fmt: skip
        with crew(tmp_path, tmp_path / "traces") as workers, beat_program as beat:
            workers.start("w0")
            wait_for(lambda: len(list(blackbox.read(get_settings().boxes))) == 2, seconds=60)
            with watching() as found:
                time.sleep(5)
                first = pid(workers)
                id = module.nap.delay(8, "through").id
                workers.wait(lambda: workers.count("nap-begin"))
                server.pause()
                time.sleep(16)
                server.resume()
                time.sleep(12)
                assert pid(workers) == first and beat.process.poll() is None
                assert not any(found[each] for each in ("hung", "silent", "stalled", "dead"))
                assert ended(workers, module.app.ironbeat.ledger, id).state == "succeeded"
        module.app.ironbeat.recorder.close(timeout=1)
    database.dispose()
    get_settings.cache_clear()
