"""What RQ carries is a run like any other: guarded, recorded, retried, cancelled, taken over."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from celery import chord
from sides import QUEUE, StartRQ, lines
from tests.processes import wait_for, worker

from ironbeat import RQMonitor, TaskManager, database
from ironbeat.dispatch.manager import TaskRejected
from ironbeat.runs.outbox import Outbox

# Programs are started; on a busy machine that alone takes long.
pytestmark = pytest.mark.timeout(600)

RQ = f"rq:{QUEUE}"


@pytest.fixture
def manager(shop: ModuleType) -> TaskManager:
    return TaskManager(shop.app)


def sweep(shop: ModuleType) -> int:
    """What beat does every second."""
    return Outbox(shop.app.ironbeat.ledger, shop.app.ironbeat.publish).sweep()


def test_a_run_waits_in_rq_and_is_executed_there(
    shop: ModuleType, manager: TaskManager, rq_worker: StartRQ, traces: Path
) -> None:
    id = manager.submit("adopted.add", [1, 2], queue=RQ)
    assert manager.status(id).queue == RQ
    assert RQMonitor(shop.app).get_queue_stats(QUEUE) == {
        "queue_length": 1,
        "failed_jobs": 0,
        "worker_count": 0,
    }
    with rq_worker() as running:
        assert manager.result(id, timeout=60) == 3
        run = manager.status(id)
        assert (run.state, run.attempt, run.worker) == (
            "succeeded",
            1,
            f"rq-00@{os.uname().nodename}",
        )
        stats = RQMonitor(shop.app).get_queue_stats(QUEUE)
        assert (stats["queue_length"], stats["worker_count"]) == (0, 1)
        # Celery's own result says the same.
        assert shop.add.AsyncResult(id).get(timeout=10) == 3
        log = running.output()
    assert lines(traces) == ["add 1 2"]
    assert "Traceback" not in log


def test_a_job_s_time_is_rq_s_own_unless_its_task_has_less(shop: ModuleType) -> None:
    for asked, given in ((None, 600), (1800, 600), (30, 30)):
        id = shop.add.apply_async((1, 2), queue=RQ, time_limit=asked).id
        assert shop.app.ironbeat.rq.queue(RQ).fetch_job(id).timeout == given


def test_retries_progress_links_and_chords_hold(
    shop: ModuleType, manager: TaskManager, rq_worker: StartRQ, traces: Path, tmp_path: Path
) -> None:
    with rq_worker(), worker("adopted", tmp_path / "worker.log"):
        flaky = manager.submit("adopted.flaky", [2], queue=RQ)
        talkative = manager.submit("adopted.talkative", queue=RQ)
        sealed = manager.submit("adopted.log_in", ["me", "secret"], queue=RQ)
        # Its parts on both sides, its end on Celery's.
        mixed = chord(
            [shop.add.s(n, n).set(queue=RQ if n % 2 else QUEUE) for n in range(4)], shop.total.s()
        )()
        assert wait_for(lambda: manager.progress(talkative), seconds=60)["current_step"]
        assert mixed.get(timeout=60) == 12
        deadline = time.monotonic() + 60
        while not all(manager.status(id).ended for id in (flaky, sealed, talkative)):
            sweep(shop)
            assert time.monotonic() < deadline
            time.sleep(0.2)
        run = manager.status(flaky)
        assert (run.state, run.result, run.attempt, run.queue) == ("succeeded", 2, 3, RQ)
        assert manager.status(sealed).result == 6
    assert lines(traces).count("flaky 2") == 1


@pytest.mark.slow
def test_a_failure_is_recorded_and_shown_by_rq(
    shop: ModuleType, manager: TaskManager, rq_worker: StartRQ
) -> None:
    id = manager.submit("adopted.always_failing", queue=RQ)
    with rq_worker():
        deadline = time.monotonic() + 60
        while not manager.status(id).ended:
            sweep(shop)
            assert time.monotonic() < deadline
            time.sleep(0.2)
        run = manager.status(id)
        assert (run.state, run.attempt) == ("failed", 2)
        assert "KeyError" in (run.error or "") and "always_failing" in (run.traceback or "")
        monitor = RQMonitor(shop.app)
        wait_for(lambda: monitor.get_queue_stats(QUEUE)["failed_jobs"] == 1)
        assert monitor.get_task_info(id)["info"] == run.error


def test_what_both_have_is_executed_once(
    manager: TaskManager, shop: ModuleType, rq_worker: StartRQ, traces: Path, tmp_path: Path
) -> None:
    ids = [manager.submit("adopted.add", [n, n]) for n in range(20)]
    messages = [(id, dict(manager.status(id).message) | {"routing_key": RQ}) for id in ids]
    shop.app.ironbeat.rq.publish(messages)
    with rq_worker(), worker("adopted", tmp_path / "worker.log"):
        for id in ids:
            manager.result(id, timeout=60)
        wait_for(lambda: RQMonitor(shop.app).get_queue_length(QUEUE) == 0, seconds=60)
    assert sorted(lines(traces)) == sorted(f"add {n} {n}" for n in range(20))


def test_a_running_and_a_waiting_run_are_cancelled(
    manager: TaskManager, rq_worker: StartRQ, traces: Path
) -> None:
    running = manager.submit("adopted.slow", [600, "a"], queue=RQ)
    waiting = manager.submit("adopted.slow", [600, "b"], queue=RQ)
    with rq_worker():
        wait_for(lambda: lines(traces), seconds=60)
        assert manager.cancel(waiting) == "cancelled"
        assert manager.cancel(running) == "stopping"
        wait_for(lambda: manager.status(running).ended, seconds=30)
        assert manager.status(running).state == "cancelled"
        # The worker goes on, and drops the cancelled one that it has still in its queue.
        after = manager.submit("adopted.add", [1, 1], queue=RQ)
        assert manager.result(after, timeout=60) == 2
    assert lines(traces) == ["slow-begin a", "add 1 1"]


@pytest.mark.slow
def test_a_killed_child_is_replaced_at_once(
    shop: ModuleType, manager: TaskManager, rq_worker: StartRQ
) -> None:
    id = manager.submit("adopted.dies_once", queue=RQ)
    with rq_worker():
        wait_for(lambda: sweep(shop) or manager.status(id).ended, seconds=60)
        assert manager.result(id, timeout=60) == "alive"
        assert manager.status(id).crashes == 1


@pytest.mark.slow
def test_a_killed_worker_s_run_moves_and_its_child_dies_with_it(
    shop: ModuleType, manager: TaskManager, rq_worker: StartRQ, traces: Path
) -> None:
    id = manager.submit("adopted.hangs_once", queue=RQ)
    with rq_worker() as first:
        wait_for(lambda: lines(traces), seconds=60)
        children = psutil.Process(first.pid).children()
        first.kill(signal.SIGKILL)
        psutil.wait_procs(children, timeout=20)
        assert children and not any(child.is_running() for child in children)
    with rq_worker():
        # There is no beat: who takes over publishes, too.
        wait_for(lambda: manager.status(id).ended, seconds=120)
    run = manager.status(id)
    assert (run.state, run.crashes, (run.worker or "").partition("@")[0]) == (
        "succeeded", 1, "rq-01",
    )  # fmt: skip
    assert lines(traces) == ["hangs_once", "hangs_once"]


@pytest.mark.slow
def test_what_rq_has_lost_is_published_again(
    shop: ModuleType, manager: TaskManager, rq_worker: StartRQ
) -> None:
    id = manager.submit("adopted.add", [3, 4], queue=RQ)
    wait_for(lambda: manager.status(id).state == "published")
    carrier, ledger = shop.app.ironbeat.rq, shop.app.ironbeat.ledger
    assert carrier.strays(RQ, [(id, 0, 0)]) == []
    carrier.client.flushdb()
    assert ledger.waiting_since(RQ, 0.0, limit=10) == [(id, 0, 0)]
    assert carrier.strays(RQ, [(id, 0, 0)]) == [(id, 0, 0)]
    ledger.publish_again([id])
    assert sweep(shop) == 1
    with rq_worker():
        assert manager.result(id, timeout=60) == 7


@pytest.mark.slow
def test_a_warm_stop_finishes_the_job(
    manager: TaskManager, rq_worker: StartRQ, traces: Path
) -> None:
    id = manager.submit("adopted.slow", [2, "end"], queue=RQ)
    with rq_worker() as running:
        wait_for(lambda: lines(traces), seconds=60)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=60) == 0
    assert manager.status(id).state == "succeeded"
    with database.connection() as connection:
        assert connection.execute("SELECT count(*) FROM ironbeat.leases").fetchone() == (0,)


def test_purging_takes_one_queue_of_one_side(shop: ModuleType, manager: TaskManager) -> None:
    there = manager.submit("adopted.add", [1, 1])
    gone = manager.submit("adopted.add", [2, 2], queue=RQ)
    assert RQMonitor(shop.app).purge_queue(QUEUE) == 1
    assert manager.status(gone).state == "cancelled"
    assert manager.status(there).state in ("pending", "published")


def test_a_queue_that_nobody_has_is_refused(manager: TaskManager) -> None:
    with pytest.raises(TaskRejected, match="no queue is named 'rq:nobody'"):
        manager.submit("adopted.add", [1, 2], queue="rq:nobody")
