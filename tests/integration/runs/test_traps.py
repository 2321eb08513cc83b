"""What guard and ledger must get right in a real worker, in each pool, with Redis and without."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from celery import chain, group
from celery.result import AsyncResult
from tests.processes import TESTS, Program, wait_for, worker

from ironbeat.dispatch import TaskManager
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import Run, RunNotFound
from ironbeat.settings import Settings, get_settings

POOLS = {
    "ironbeat": ("--pool", "custom", "--concurrency", "1"),
    "solo": ("--pool", "solo"),
    "threads": ("--pool", "threads", "--concurrency", "2"),
    "prefork": ("--pool", "prefork", "--concurrency", "2"),
}
WITHOUT_REDIS = "-without-redis"


class Shop:
    """The adopted application in this process, and its worker's traces."""

    def __init__(
        self, module: ModuleType, traces: Path, program: Program, pool: str, *, has_redis: bool
    ) -> None:
        self.pool = pool
        self.has_redis = has_redis
        self.tasks = module
        self.ledger: Ledger = module.app.ironbeat.ledger
        self.app = module.app
        self.program = program
        self._traces = traces

    def traces(self) -> Counter[str]:
        if not self._traces.exists():
            return Counter()
        return Counter(self._traces.read_text().splitlines())

    def forget_traces(self) -> None:
        self._traces.unlink(missing_ok=True)

    def ended(self, id: str) -> Run:
        def look() -> Run | None:
            try:
                run = self.ledger.get(id)
            except RunNotFound:
                return None
            return run if run.ended else None

        return wait_for(look, program=self.program)


@pytest.fixture(
    scope="module",
    params=[
        *POOLS,
        "ironbeat" + WITHOUT_REDIS,
        "prefork" + WITHOUT_REDIS,
        pytest.param("threads" + WITHOUT_REDIS, marks=pytest.mark.slow),
        pytest.param("solo" + WITHOUT_REDIS, marks=pytest.mark.slow),
    ],
)
def worked_shop(
    request: pytest.FixtureRequest,
    module_settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    traces = folder / "traces"
    pool = request.param.removesuffix(WITHOUT_REDIS)
    has_redis = pool == request.param
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("TRACES", str(traces))
        if not has_redis:
            monkeypatch.setenv("USE_REDIS", "false")
            get_settings.cache_clear()
        monkeypatch.syspath_prepend(str(TESTS / "integration" / "apps"))
        sys.modules.pop("adopted", None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module("adopted")
        monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "ironbeat.execution.pool:TaskPool")
        with worker("adopted", folder / "worker.log", *POOLS[pool]) as program:
            yield Shop(module, traces, program, pool, has_redis=has_redis)
    get_settings.cache_clear()


@pytest.fixture
def shop(worked_shop: Shop) -> Shop:
    worked_shop.forget_traces()
    return worked_shop


def test_a_plain_task_is_recorded(shop: Shop) -> None:
    sent = shop.tasks.add.delay(1, 2)
    assert sent.get(timeout=10) == 3
    run = shop.ended(sent.id)
    assert (run.state, run.result, run.attempt, run.task) == ("succeeded", 3, 1, "adopted.add")
    assert run.argsrepr == "(1, 2)"
    assert run.worker and run.worker.startswith("w@")


def test_retries_end_as_one_run(shop: Shop) -> None:
    sent = shop.tasks.flaky.delay(2)
    assert sent.get(timeout=10) == 2
    run = shop.ended(sent.id)
    assert (run.state, run.attempt, run.retries) == ("succeeded", 3, 2)
    assert [a["error"] for a in run.attempts] == ["ValueError: attempt 0", "ValueError: attempt 1"]
    assert shop.traces() == {"flaky 0": 1, "flaky 1": 1, "flaky 2": 1}


def test_the_last_failure_is_kept_with_its_traceback(shop: Shop) -> None:
    sent = shop.tasks.always_failing.delay()
    with pytest.raises(KeyError):
        sent.get(timeout=10)
    run = shop.ended(sent.id)
    assert (run.state, run.attempt) == ("failed", 2)
    assert run.error is not None and run.error.startswith("KeyError: ")
    assert run.traceback is not None and "raise KeyError" in run.traceback


def test_a_retry_that_does_not_raise(shop: Shop) -> None:
    sent = shop.tasks.retry_without_raising.delay()
    run = shop.ended(sent.id)
    assert (run.state, run.result, run.attempt) == ("succeeded", "second", 2)
    assert shop.traces() == {"retry_without_raising 0": 1, "retry_without_raising 1": 1}


def test_a_replacement_is_the_same_run(shop: Shop) -> None:
    sent = shop.tasks.replaced.delay(2)
    assert sent.get(timeout=10) == "bottom"
    run = shop.ended(sent.id)
    assert (run.state, run.result, run.attempt, run.replacements) == ("succeeded", "bottom", 3, 2)


def test_direct_and_recursive_calls_pass(shop: Shop) -> None:
    assert shop.tasks.recursive.delay(3).get(timeout=10) == 6
    assert shop.tasks.add(1, 1) == 2
    assert shop.tasks.add.apply((2, 2)).get() == 4


def test_ignored_and_rejected_runs_end(shop: Shop) -> None:
    ignored, rejected = shop.tasks.ignoring.delay(), shop.tasks.rejecting.delay()
    assert shop.ended(ignored.id).state == "skipped"
    run = shop.ended(rejected.id)
    assert (run.state, run.reason) == ("dead", "rejected: 'no good'")


def test_a_chain_and_a_chord(shop: Shop) -> None:
    add, total = shop.tasks.add, shop.tasks.total
    chained = chain(add.s(1, 1), add.s(10))()
    assert chained.get(timeout=10) == 12
    assert shop.ended(chained.id).parent_id == chained.parent.id
    counted = (group(add.s(i, i) for i in range(5)) | total.s())()
    assert counted.get(timeout=15) == 20
    assert shop.ended(counted.id).state == "succeeded"


def test_progress_is_readable(shop: Shop) -> None:
    sent = shop.tasks.talkative.delay()
    wait_for(lambda: shop.app.AsyncResult(sent.id).state == "PROGRESS")
    report = wait_for(lambda: shop.ledger.get(sent.id).progress)
    assert set(report) == {"progress", "current_step"}
    assert shop.ended(sent.id).state == "succeeded"


def test_copies_of_an_ended_run_execute_nothing(shop: Shop) -> None:
    """A copy returns the stored value: chain and chord hear of it, STARTED overwrites nothing."""
    from ironbeat.submission import SENDING, Sending

    if not shop.has_redis:
        pytest.skip("there is nothing that could bring a copy")
    captured: list = []
    token = SENDING.set(Sending(durable=True, capture=captured))
    chained = chain(shop.tasks.add.s(1, 1), shop.tasks.add.s(10)).apply_async()
    SENDING.reset(token)
    [first] = captured
    for _ in range(3):
        shop.app.ironbeat.publish([(first.id, first.message)])
    assert chained.get(timeout=10) == 12
    shop.ended(chained.id)
    shop.app.ironbeat.publish([(first.id, first.message)])
    marker = shop.tasks.add.delay(0, 0)
    marker.get(timeout=10)
    assert shop.traces() == {"add 1 1": 1, "add 2 10": 1, "add 0 0": 1}
    assert AsyncResult(first.id, app=shop.app).state == "SUCCESS"
    assert AsyncResult(first.id, app=shop.app).result == 2


def test_sensitive_arguments_are_sealed_everywhere(shop: Shop) -> None:
    sent = shop.tasks.log_in.delay("ann", password="open sesame")
    assert sent.get(timeout=10) == len("open sesame")
    run = shop.ended(sent.id)
    assert (run.argsrepr, run.kwargsrepr) == ("('ann',)", "{'password': '***'}")
    assert "sesame" not in str(run) + shop.program.output()


def test_an_expired_run_ends_as_expired(shop: Shop) -> None:
    late = shop.tasks.slow.apply_async((0, "late"), expires=-1)
    assert shop.ended(late.id).state == "expired"
    assert not shop.traces()


def test_a_running_task_is_cancelled(shop: Shop) -> None:
    pool = shop.pool
    if pool in ("solo", "threads"):
        pytest.skip("Celery cannot interrupt a task in this pool")
    manager = TaskManager(shop.app)
    id = manager.submit("adopted.slow", [20, "long"])
    wait_for(lambda: shop.traces()["slow-begin long"])
    wait_for(lambda: manager.status(id).state == "running")
    assert manager.cancel(id) == "stopping"
    assert shop.ended(id).state == "cancelled"
    assert shop.tasks.add.delay(1, 1).get(timeout=15) == 2
    assert "slow-end long" not in shop.traces()


def test_a_hard_limit_ends_the_run_as_failed(shop: Shop) -> None:
    pool = shop.pool
    if pool in ("solo", "threads"):
        pytest.skip("Celery has no hard limit in this pool")
    if pool == "ironbeat":
        pytest.skip("ends the worker: see test_pool.py")
    sent = shop.tasks.slow.apply_async((20, "limited"), time_limit=1)
    run = shop.ended(sent.id)
    assert run.state == "failed"
    assert run.error is not None and "TimeLimitExceeded" in run.error
    assert shop.tasks.add.delay(1, 1).get(timeout=15) == 2


def test_a_lost_child_costs_an_attempt(shop: Shop) -> None:
    if shop.pool != "prefork":
        pytest.skip("no child processes in this pool")
    sent = shop.tasks.dies_once.delay()
    run = shop.ended(sent.id)
    assert (run.state, run.result, run.attempt, run.crashes) == ("succeeded", "alive", 2, 1)
