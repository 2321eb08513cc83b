"""TaskManager: what was submitted is committed, whatever the broker does."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from redis import Redis
from tests.processes import TESTS, wait_for, worker

from ironbeat import TaskManager, database
from ironbeat.dispatch.manager import MAX_ARGUMENT_BYTES, Submit, TaskRejected
from ironbeat.embedded import temporary_redis
from ironbeat.execution.attempt import RunFailed
from ironbeat.runs.model import LedgerUnavailable, RunNotFound
from ironbeat.runs.replay import NotReplayable
from ironbeat.settings import Settings, get_settings


@pytest.fixture
def shop(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    monkeypatch.setenv("TRACES", str(tmp_path / "traces"))
    monkeypatch.syspath_prepend(str(TESTS / "integration" / "apps"))
    sys.modules.pop("adopted", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("adopted")
    yield module
    module.app.ironbeat.recorder.close(timeout=1)


@pytest.fixture
def manager(shop: ModuleType) -> TaskManager:
    return TaskManager(shop.app)


def waiting(settings: Settings) -> int:
    with Redis.from_url(settings.broker_url.get_secret_value()) as client:
        return client.llen("celery")


def test_a_submission_is_committed_and_published(manager: TaskManager, settings: Settings) -> None:
    id = manager.submit("adopted.add", [1, 2])
    run = manager.status(id)
    assert (run.durable, run.queue, run.argsrepr) == (True, "celery", "(1, 2)")
    assert run.message["body"][0] == [1, 2]
    assert waiting(settings) == 1
    wait_for(lambda: manager.status(id).state == "published")


@pytest.mark.parametrize(
    ("task", "args", "kwargs", "message"),
    [
        ("adopted.nothing", [], {}, "no task is named 'adopted.nothing'; registered are: .*add"),
        ("adopted.add", [1], {}, r"do not fit adopted.add\(x, y\): missing .* 'y'"),
        ("adopted.add", [1, 2], {"z": 3}, "unexpected keyword argument 'z'"),
        ("adopted.add", [1, object()], {}, "cannot be submitted: .*object"),
        ("adopted.add", ["x" * MAX_ARGUMENT_BYTES, 1], {}, "at most 1048576 are carried"),
        ("adopted.add", "12", {}, "args must be a list, not str"),
    ],
)
def test_bad_submissions_change_nothing(
    manager: TaskManager, settings: Settings, task: str, args: list, kwargs: dict, message: str
) -> None:
    with pytest.raises(TaskRejected, match=message):
        manager.submit(task, args, kwargs)
    with database.connection() as connection:
        assert connection.execute("SELECT count(*) FROM ironbeat.runs").fetchone() == (0,)
    assert waiting(settings) == 0


def test_an_unknown_queue_is_refused(manager: TaskManager) -> None:
    manager.app.conf.task_create_missing_queues = False
    with pytest.raises(TaskRejected, match="no queue is named 'nowhere'; there are: celery"):
        manager.submit("adopted.add", [1, 2], queue="nowhere")


def test_a_key_makes_a_repeated_submission_return_the_first_run(manager: TaskManager) -> None:
    first = manager.submit("adopted.add", [1, 2], idempotency_key="order-7")
    again = [manager.submit("adopted.add", [1, 2], idempotency_key="order-7") for _ in range(3)]
    assert again == [first] * 3
    other = manager.submit("adopted.add", [1, 2], idempotency_key="order-8")
    assert other != first
    short = manager.submit("adopted.add", [0, 0], idempotency_key="k", idempotency_window=0.05)
    time.sleep(0.1)
    assert manager.submit("adopted.add", [0, 0], idempotency_key="k") != short


def test_one_key_submitted_at_once_makes_one_run(manager: TaskManager) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(
                manager.submit("adopted.add", [1, 1], idempotency_key="same")
            )
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_with_the_callers_session_it_is_both_or_none(
    manager: TaskManager, settings: Settings
) -> None:
    with database.session() as session:
        kept = manager.submit("adopted.add", [1, 2], session=session)
        with pytest.raises(RunNotFound):
            manager.status(kept)
        assert waiting(settings) == 0
    assert manager.status(kept).state in ("pending", "published")
    assert waiting(settings) == 1
    lost = ""
    with pytest.raises(ZeroDivisionError), database.session() as session:
        lost = manager.submit("adopted.add", [1, 2], session=session)
        1 / 0  # noqa: B018
    with pytest.raises(RunNotFound):
        manager.status(lost)
    assert waiting(settings) == 1


def test_many(manager: TaskManager, settings: Settings) -> None:
    ids = manager.submit_many([Submit("adopted.add", (i, i)) for i in range(250)], batch=100)
    assert len(set(ids)) == 250
    assert waiting(settings) == 250
    with pytest.raises(TaskRejected):
        manager.submit_many([Submit("adopted.add", (1, 1)), Submit("adopted.add", (1,))])
    assert waiting(settings) == 250


def test_what_is_due_later_waits_in_the_ledger(manager: TaskManager, settings: Settings) -> None:
    id = manager.submit("adopted.add", [1, 2], countdown=3600)
    run = manager.status(id)
    assert waiting(settings) == 0
    assert run.publish_at is not None and run.eta is not None
    assert timedelta(seconds=3500) < run.publish_at - datetime.now(UTC) < timedelta(seconds=3600)


def test_cancelling_what_waits(manager: TaskManager) -> None:
    id = manager.submit("adopted.add", [1, 2])
    assert manager.cancel(id) == "cancelled"
    assert manager.cancel(id) == "cancelled"
    with pytest.raises(RunFailed, match="is cancelled: cancelled by hand"):
        manager.result(id)
    with pytest.raises(RunNotFound):
        manager.cancel("nobody")


def test_results_and_cancelled_copies_with_a_worker(
    manager: TaskManager, shop: ModuleType, tmp_path: Path
) -> None:
    cancelled = manager.submit("adopted.add", [5, 5])
    manager.cancel(cancelled)
    with worker("adopted", tmp_path / "w.log", "--pool", "solo"):
        assert manager.result(manager.submit("adopted.add", [1, 2]), timeout=15) == 3
        failing = manager.submit("adopted.always_failing")
        with pytest.raises(RunFailed, match="is failed: KeyError"):
            manager.result(failing, timeout=15)
        assert asyncio.run(without_blocking(manager)) == 7
    assert "add 5 5" not in (tmp_path / "traces").read_text()
    assert shop.app.AsyncResult(cancelled).state == "REVOKED"


def test_a_failed_run_is_replayed_as_a_new_one(
    manager: TaskManager, shop: ModuleType, tmp_path: Path
) -> None:
    with worker("adopted", tmp_path / "w.log", "--pool", "solo"):
        failed = shop.breaks_once.delay("é\x00").id
        wait_for(lambda: manager._seen(failed) and manager._seen(failed).ended)
        with pytest.raises(RunFailed, match="OSError: first"):
            manager.result(failed)
        again = manager.replay(failed)
        assert manager.result(again, timeout=15) == "é\x00"
    assert manager.status(again).parent_id == failed
    assert manager.status(failed).state == "failed"
    for wrong in (again, manager.submit("adopted.add", [1, 2])):
        with pytest.raises(NotReplayable):
            manager.replay(wrong)


async def without_blocking(manager: TaskManager) -> int:
    later = await manager.asubmit("adopted.add", [1, 1], countdown=3600)
    first, second = await manager.asubmit_many(
        [Submit("adopted.add", (3, 4)), Submit("adopted.add", (5, 6))]
    )
    assert await manager.aresult(second, timeout=15) == 11
    assert (await manager.astatus(second)).state == "succeeded"
    assert await manager.acancel(later, reason="no longer wanted") == "cancelled"
    assert (await manager.astatus(later)).reason == "no longer wanted"
    return await manager.aresult(first, timeout=15)


def test_a_broker_that_refuses_costs_no_submission(
    manager: TaskManager, shop: ModuleType, settings: Settings
) -> None:
    shop.app.conf.broker_url = "redis://127.0.0.1:9/1"
    began = time.monotonic()
    id = manager.submit("adopted.add", [1, 2])
    plain = shop.add.delay(3, 4)
    assert time.monotonic() - began < 5
    assert manager.status(id).state == "pending"
    run = manager.status(plain.id)
    assert (run.state, run.durable) == ("pending", False)
    assert run.message["body"][0] == [3, 4]


def test_a_broker_that_hangs_costs_no_submission(shop: ModuleType, settings: Settings) -> None:
    with temporary_redis() as server:
        shop.app.conf.broker_url = server.url
        shop.add.delay(1, 2)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            plain = [shop.add.delay(3, 4) for _ in range(5)]
            assert time.monotonic() - began < 3 * settings.broker_timeout_seconds
        finally:
            os.kill(server.pid, signal.SIGCONT)
        states = {shop.app.ironbeat.ledger.get(sent.id).state for sent in plain}
        assert states == {"pending"}


def test_without_the_ledger_a_durable_submission_is_refused(
    shop: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ironbeat.runs.ledger import Ledger

    shop.app.ironbeat.submission.ledger = Ledger("postgresql://nobody@127.0.0.1:9/none")
    shop.app.ironbeat.ledger = shop.app.ironbeat.submission.ledger
    with pytest.raises(LedgerUnavailable, match="PostgreSQL cannot be reached"):
        TaskManager(shop.app).submit("adopted.add", [1, 2])


def test_sensitive_arguments_reach_neither_broker_nor_ledger(
    manager: TaskManager, settings: Settings
) -> None:
    id = manager.submit("adopted.log_in", ["ann", "open sesame"])
    run = manager.status(id)
    with Redis.from_url(settings.broker_url.get_secret_value()) as client:
        [carried] = client.lrange("celery", 0, -1)
    assert run.argsrepr == "('ann', '***')"
    assert "__sealed__" in str(run.message)
    assert "sesame" not in str(run)
    assert b"sesame" not in carried


def test_without_a_key_nothing_sensitive_is_sent(
    manager: TaskManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IRONBEAT_ENCRYPTION_KEY")
    get_settings.cache_clear()
    with pytest.raises(TaskRejected, match="set IRONBEAT_ENCRYPTION_KEY"):
        manager.submit("adopted.log_in", ["ann", "open sesame"])
