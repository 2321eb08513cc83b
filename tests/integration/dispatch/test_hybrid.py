"""HybridTaskManager: a ratio for everybody, sides that stay, moves that lose and double nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from sides import QUEUE, StartRQ, lines
from tests.processes import wait_for, worker

from ironbeat import Call, CeleryMonitor, HybridTaskManager, QueueFull, RQMonitor
from ironbeat.runs.outbox import Outbox
from ironbeat.settings import get_settings

# Programs are started; on a busy machine that alone takes long.
pytestmark = pytest.mark.timeout(600)


def calls(numbers: range) -> list[Call]:
    return [Call("adopted.add", [n, n], key=f"chunk-{n}") for n in numbers]


def test_by_default_everything_goes_to_rq(hybrid: HybridTaskManager, shop: ModuleType) -> None:
    assert hybrid.use_celery_ratio == 0.0
    submitted = hybrid.submit_task("adopted.add", 1, 2)
    assert (submitted.side, submitted.state) == ("rq", "PENDING")
    assert RQMonitor(shop.app).get_queue_length(QUEUE) == 1
    assert CeleryMonitor(shop.app).get_queue_length(QUEUE) == 0


def test_the_setting_and_the_argument_hold_until_somebody_sets_a_ratio(
    shop: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert HybridTaskManager(0.25, app=shop.app).use_celery_ratio == 0.25
    monkeypatch.setattr(
        shop.app.ironbeat, "settings", get_settings().model_copy(update={"use_celery": True})
    )
    manager = HybridTaskManager(app=shop.app)
    assert manager.use_celery_ratio == 1.0
    manager.use_celery_ratio = 0.0
    assert manager.use_celery_ratio == 0.0


def test_a_ratio_is_effective_everywhere_within_a_second(shop: ModuleType) -> None:
    one, other = (HybridTaskManager(app=shop.app) for _ in range(2))
    assert (one.use_celery_ratio, other.use_celery_ratio) == (0.0, 0.0)
    assert one.set_ratio(0.4) == 0.0
    began = time.monotonic()
    wait_for(lambda: other.use_celery_ratio == 0.4, seconds=5)
    # What it remembers is half a second old at most; the rest is this machine's load.
    assert time.monotonic() - began < 1.0 + 2.0
    with pytest.raises(ValueError, match="a share from 0 to 1"):
        one.use_celery_ratio = 1.5
    assert one.use_celery_ratio == 0.4


def test_the_same_key_is_one_run_until_it_failed(
    hybrid: HybridTaskManager, shop: ModuleType
) -> None:
    first, again = (hybrid.submit_task("adopted.add", 1, 1, key="chunk-1") for _ in range(2))
    assert again.id == first.id
    hybrid.set_ratio(1.0)
    assert hybrid.submit_task("adopted.add", 1, 1, key="chunk-1").id == first.id
    assert CeleryMonitor(shop.app).get_queue_length(QUEUE) == 0
    assert hybrid.cancel(first.id) == "cancelled"
    assert first.state == "REVOKED"
    fresh = hybrid.submit_task("adopted.add", 1, 1, key="chunk-1")
    assert fresh.id != first.id and fresh.side == "celery"


def test_one_bad_call_leaves_nothing_behind(hybrid: HybridTaskManager, shop: ModuleType) -> None:
    with pytest.raises(ValueError, match="no task is named"):
        hybrid.submit_tasks([*calls(range(3)), Call("adopted.nothing", key="x")])
    assert RQMonitor(shop.app).get_queue_length(QUEUE) == 0
    assert hybrid.submit_tasks(calls(range(3)))[0].state == "PENDING"


def test_many_with_the_same_keys_are_one_run_each(
    hybrid: HybridTaskManager, shop: ModuleType
) -> None:
    first = hybrid.submit_tasks(calls(range(3)))
    hybrid.cancel(first[1].id)
    # Within one submission, too; the cancelled one's key is free again.
    again = hybrid.submit_tasks([*calls(range(5)), *calls(range(5))])
    assert [each.id for each in again[:5]] == [each.id for each in again[5:]]
    assert (again[0].id, again[2].id) == (first[0].id, first[2].id)
    assert again[1].id != first[1].id
    assert len({each.id for each in again}) == 5
    # With the message of the cancelled one, which is dropped when it is taken.
    assert RQMonitor(shop.app).get_queue_length(QUEUE) == 6


def test_a_cap_holds_for_either_side(
    monkeypatch: pytest.MonkeyPatch, hybrid: HybridTaskManager, shop: ModuleType
) -> None:
    monkeypatch.setattr(shop.app.ironbeat.capacity, "caps", {QUEUE: 10})
    hybrid.submit_tasks(calls(range(8)))
    with pytest.raises(QueueFull, match=r"queue 'rq:celery' is full: 8 runs wait, 10 may"):
        hybrid.submit_tasks(calls(range(8, 12)))
    # Nothing of them was written, so the others fit; what is there already takes no room.
    assert RQMonitor(shop.app).get_queue_length(QUEUE) == 8
    hybrid.submit_tasks(calls(range(10)))
    with pytest.raises(QueueFull):
        hybrid.submit_task("adopted.add", 1, 1, key="one-more")
    assert len(hybrid.submit_tasks(calls(range(10, 12)), goes_on=True)) == 2
    # Celery's side has a count of its own, and may have a cap of its own.
    hybrid.set_ratio(1.0)
    hybrid.submit_tasks(calls(range(20, 30)))
    with pytest.raises(QueueFull, match="queue 'celery' is full"):
        hybrid.submit_task("adopted.add", 1, 1, key="one-more")
    monkeypatch.setattr(shop.app.ironbeat.capacity, "caps", {QUEUE: 10, f"rq:{QUEUE}": 0})
    hybrid.set_ratio(0.0)
    assert len(hybrid.submit_tasks(calls(range(30, 40)))) == 10


def test_moving_takes_what_waits_and_nothing_else(
    hybrid: HybridTaskManager, shop: ModuleType
) -> None:
    hybrid.set_ratio(1.0)
    ids = [each.id for each in hybrid.submit_tasks(calls(range(30)))]
    plain = shop.add.delay(7, 7)
    celery, rq = CeleryMonitor(shop.app), RQMonitor(shop.app)
    assert celery.get_queue_length(QUEUE) == 31
    assert sorted(hybrid.move(QUEUE, "rq")) == sorted(ids)
    # What is only in the broker stays there: nobody else has its message.
    assert (celery.get_queue_length(QUEUE), rq.get_queue_length(QUEUE)) == (1, 30)
    assert {hybrid.status(id).queue for id in ids} == {f"rq:{QUEUE}"}
    assert sorted(hybrid.move(QUEUE, "celery")) == sorted(ids)
    assert (celery.get_queue_length(QUEUE), rq.get_queue_length(QUEUE)) == (31, 0)
    assert plain.id not in ids


def test_the_ratio_moves_under_load_and_nothing_is_lost_or_doubled(
    hybrid: HybridTaskManager,
    shop: ModuleType,
    rq_worker: StartRQ,
    traces: Path,
    tmp_path: Path,
) -> None:
    """0 → 1 → 0 while 160 chunks are submitted and worked on, then all that waits is moved."""

    def on_celery(found: Iterable[str]) -> bool:
        runs = [hybrid.status(id) for id in found]
        return any(r.state == "succeeded" and not (r.queue or "").startswith("rq:") for r in runs)

    total, ids = 160, dict[int, str]()
    ratios = {40: 1.0, 80: 0.5, 120: 0.0}
    swept = threading.Event()

    def sweep() -> None:
        outbox = Outbox(shop.app.ironbeat.ledger, shop.app.ironbeat.publish)
        while not swept.wait(0.5):
            outbox.sweep()

    sweeper = threading.Thread(target=sweep, daemon=True)
    with rq_worker(), worker("adopted", tmp_path / "w.log", "-P", "solo"):
        sweeper.start()
        for begin in range(0, total, 20):
            if begin in ratios:
                if not ratios[begin]:
                    # Otherwise all may be moved before Celery's worker is up.
                    wait_for(partial(on_celery, list(ids.values())), seconds=60)
                hybrid.set_ratio(ratios[begin])
                moved = hybrid.move(QUEUE, "celery" if ratios[begin] else "rq")
                assert set(moved) <= set(ids.values())
            batch = calls(range(begin, begin + 20))
            submitted = hybrid.submit_tasks(batch)
            ids |= {begin + n: each.id for n, each in enumerate(submitted)}
            # Sent again, as an impatient caller does.
            assert [each.id for each in hybrid.submit_tasks(batch)] == [s.id for s in submitted]
        for id in ids.values():
            hybrid.result(id, timeout=120)
    swept.set()
    sweeper.join(10)
    assert len(set(ids.values())) == total
    assert Counter(lines(traces)) == {f"add {n} {n}": 1 for n in range(total)}
    states = Counter(hybrid.status(id).state for id in ids.values())
    assert states == {"succeeded": total}
    sides = Counter(
        "rq" if hybrid.status(id).queue.startswith("rq:") else "celery" for id in ids.values()
    )
    assert sides["rq"] and sides["celery"]


def test_celery_monitor_tells_from_leases_and_ledger(
    hybrid: HybridTaskManager, shop: ModuleType, traces: Path, tmp_path: Path
) -> None:
    monitor = CeleryMonitor(shop.app)
    assert monitor.health_check() == {"status": "unhealthy", "reason": "no active workers"}
    with worker("adopted", tmp_path / "w.log", "-c", "1"):
        health = wait_for(
            lambda: (h := monitor.health_check())["status"] == "healthy" and h, seconds=30
        )
        assert health["active_workers"] == 1 and health["worker_names"][0].startswith("w@")
        id = shop.slow.delay(600, "m").id
        later = shop.add.apply_async((1, 2), countdown=3600).id
        wait_for(lambda: lines(traces), seconds=60)
        stats = wait_for(
            lambda: (s := monitor.get_worker_stats())["active_tasks"] and s, seconds=30
        )
        assert [(t["id"], t["task"]) for t in stats["active_tasks"]] == [(id, "adopted.slow")]
        assert "adopted.add" in stats["registered_tasks"]
        wait_for(
            lambda: later in [each["id"] for each in monitor.get_worker_stats()["scheduled_tasks"]]
        )
        assert monitor.get_task_info(id)["state"] == "running"
        assert monitor.cancel_task(id) == "stopping"
        wait_for(lambda: monitor.get_task_info(id)["state"] == "cancelled", seconds=30)
