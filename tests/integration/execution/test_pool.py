"""Workers with the pool ``ironbeat``: what they run, and that they can be steered while busy."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import celery
import pytest
import redis
from celery import chain, chord, group, signature
from celery.exceptions import TaskRevokedError, TimeLimitExceeded
from workers import Fleet, wait_for

from ironbeat.embedded import ServerProcess
from ironbeat.execution import deliveries
from ironbeat.execution.events import REST_SECONDS
from ironbeat.execution.leaving import ExitStatus


@pytest.fixture
def fleet(broker: str, tmp_path: Path) -> Iterator[Fleet]:
    """No workers yet; results ignored."""
    fleet = Fleet(broker, tmp_path)
    yield fleet
    fleet.close()


@pytest.fixture
def fleet_with_results(broker: str, tmp_path: Path) -> Iterator[Fleet]:
    """No workers yet."""
    fleet = Fleet(broker, tmp_path, backend=broker.replace("/1", "/2"))
    yield fleet
    fleet.close()


def unacked(client: redis.Redis) -> int:
    assert client.hlen("unacked") == client.zcard("unacked_index")
    return client.hlen("unacked")


# -- what a worker does all day, one worker for all of these -------------------------------------


@pytest.fixture(scope="module")
def crew(redis_server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of one worker that the tests below share."""
    base = redis_server.url.rsplit("/", 1)[0]
    fleet = Fleet(f"{base}/3", tmp_path_factory.mktemp("crew"), backend=f"{base}/4")
    fleet.start("-E", queues="default,other")
    yield fleet
    fleet.close()


def sig(name: str, *args: Any, **options: Any) -> Any:
    app: celery.Celery = options.pop("app")
    return signature(f"worker_app.{name}", args=args, app=app, queue="default", **options)


@pytest.fixture
def redis_url(redis_server: ServerProcess) -> str:
    """Emptied only where the shared worker does not live."""
    base = redis_server.url.rsplit("/", 1)[0]
    for number in (1, 2):
        with redis.Redis.from_url(f"{base}/{number}") as client:
            client.flushdb()
    return base


def test_canvases(crew: Fleet) -> None:
    app = crew.app
    chained = chain(sig("add", 2, 2, app=app), sig("add", 4, app=app)).apply_async()
    grouped = group(sig("add", i, i, app=app) for i in range(5)).apply_async()
    counted = chord([sig("add", i, i, app=app) for i in range(20)], sig("total", app=app))()
    assert chained.get(timeout=20) == 8
    assert grouped.get(timeout=20) == [0, 2, 4, 6, 8]
    assert counted.get(timeout=20) == 380


def test_retry_and_failure(crew: Fleet) -> None:
    retried = crew.send("flaky", "flaky")
    failed = crew.send("boom", "boom")
    assert retried.get(timeout=20) == 2
    with pytest.raises(ValueError, match="boom boom"):
        failed.get(timeout=20)


def test_eta_waits_and_does_not_hold_up_the_others(crew: Fleet) -> None:
    due = datetime.now(UTC) + timedelta(seconds=2)
    for n in range(5):
        crew.send("note", f"later-{n}", eta=due)
    crew.send("note", "now")
    wait_for(lambda: "now" in crew.ids(), 1.5)
    wait_for(lambda: sum(id.startswith("later-") for id in crew.ids()) == 5)
    assert min(x.at for x in crew.lines("did") if x.id.startswith("later-")) >= due.timestamp()


def test_what_has_expired_does_not_run(crew: Fleet) -> None:
    expired = crew.send("note", "expired", expires=datetime.now(UTC) - timedelta(seconds=1))
    crew.send("note", "fresh", expires=60)
    with pytest.raises(TaskRevokedError):
        expired.get(timeout=20)
    wait_for(lambda: "fresh" in crew.ids())
    assert "expired" not in crew.ids()


def test_the_more_urgent_goes_first(crew: Fleet) -> None:
    crew.send("nap", "blocker", 0.7)
    wait_for(lambda: "blocker" in crew.ids("began"))
    for priority in (9, 6, 3, 0):
        for n in range(3):
            crew.send("note", f"p{priority}-{n}", priority=priority)
    wait_for(lambda: sum(id.startswith("p") for id in crew.ids()) == 12)
    order = [id for id in crew.ids() if id.startswith("p")]
    assert order == [f"p{p}-{n}" for p in (0, 3, 6, 9) for n in range(3)]


def test_a_rate_limit_holds(crew: Fleet) -> None:
    for n in range(6):
        crew.send("limited", f"limited-{n}")
    wait_for(lambda: sum(id.startswith("limited-") for id in crew.ids()) == 6)
    at = [line.at for line in crew.lines("did") if line.id.startswith("limited-")]
    assert at[-1] - at[0] >= 0.9


def test_a_revoked_task_does_not_run(crew: Fleet) -> None:
    crew.send("nap", "keeps-busy", 1.0)
    wait_for(lambda: "keeps-busy" in crew.ids("began"))
    queued = crew.send("note", "revoked")
    crew.app.control.revoke(queued.id)
    with pytest.raises(TaskRevokedError):
        queued.get(timeout=20)
    assert "revoked" not in crew.ids()


def test_a_running_task_is_cancelled_and_the_worker_goes_on(crew: Fleet) -> None:
    running = crew.send("nap", "cancel-me", 30)
    wait_for(lambda: "cancel-me" in crew.ids("began"))
    began = time.monotonic()
    crew.app.control.revoke(running.id, terminate=True)
    wait_for(lambda: "cancel-me" in crew.ids("Cancelled"), 5)
    assert time.monotonic() - began < 3
    with pytest.raises(TaskRevokedError):
        running.get(timeout=20)
    assert crew.send("add", 1, 1).get(timeout=20) == 2
    assert crew.processes[0].poll() is None


def test_control_answers_while_a_task_runs(crew: Fleet) -> None:
    crew.send("nap", "long", 4)
    wait_for(lambda: "long" in crew.ids("began"))
    inspect = crew.app.control.inspect(timeout=1.0, limit=1)
    began = time.monotonic()
    assert inspect.ping() == {"w0@test": {"ok": "pong"}}
    assert [t["name"] for t in inspect.active()["w0@test"]] == ["worker_app.nap"]
    pool = inspect.stats()["w0@test"]["pool"]
    assert pool["implementation"] == "ironbeat.execution.pool:TaskPool"
    assert pool["processes"] == [crew.processes[0].pid]
    assert inspect.reserved() == {"w0@test": []}
    assert "long" not in crew.ids(), "all of it while the task ran"
    assert time.monotonic() - began < 4


def test_queues_are_added_and_left_by_remote_control(crew: Fleet) -> None:
    crew.app.control.add_consumer("extra", reply=True, timeout=1)
    crew.send("note", "extra", queue="extra")
    wait_for(lambda: "extra" in crew.ids())
    crew.app.control.cancel_consumer("extra", reply=True, timeout=1)
    time.sleep(0.5)
    crew.send("note", "extra-2", queue="extra")
    crew.send("note", "not-extra")
    wait_for(lambda: "not-extra" in crew.ids())
    assert "extra-2" not in crew.ids()


def test_events_come_as_things_happen(crew: Fleet) -> None:
    """Those of a long task while it runs, and heartbeats: what Flower lives on."""
    events: list[dict[str, Any]] = []
    stop = threading.Event()

    def listen_until_stopped() -> None:
        while not stop.is_set():
            try:
                with crew.app.connection_for_read() as connection:
                    receiver = crew.app.events.Receiver(connection, handlers={"*": events.append})
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)
            except TimeoutError:
                continue

    thread = threading.Thread(target=listen_until_stopped)
    thread.start()
    try:
        # A listener misses what happens before the workers know of it.
        wait_for(lambda: events, 15)
        time.sleep(REST_SECONDS)
        id = crew.send("nap", "watched", 6).id

        def types(of: str | None = None) -> Counter[str]:
            return Counter(e["type"] for e in list(events) if of is None or e.get("uuid") == of)

        wait_for(lambda: types(id)["task-started"], 4)
        assert "watched" not in crew.ids()
        wait_for(lambda: types()["worker-heartbeat"] >= 2, 5)
        assert "watched" not in crew.ids(), "the heartbeats came while it ran"
        wait_for(lambda: types(id)["task-succeeded"])
        assert types(id) == {"task-received": 1, "task-started": 1, "task-succeeded": 1}
    finally:
        stop.set()
        thread.join()


def test_a_soft_limit_lets_the_task_tidy_up(crew: Fleet) -> None:
    began = time.monotonic()
    assert crew.send("tidy", "tidy").get(timeout=20) == "tidied up"
    assert time.monotonic() - began < 3
    wait_for(lambda: "Soft time limit (0.5s) exceeded for worker_app.tidy" in crew.output())
    # The timer is off again.
    assert crew.send("nap", "after-tidy", 1.0).get(timeout=20) == "after-tidy"


def test_sys_exit_is_a_failure_of_the_task_not_the_end_of_the_worker(crew: Fleet) -> None:
    left = crew.send("leave", "leave")
    with pytest.raises(Exception, match="SystemExit"):
        left.get(timeout=20)
    assert crew.send("add", 2, 1).get(timeout=20) == 3
    assert crew.processes[0].poll() is None


# -- limits that end the process -----------------------------------------------------------------


def test_the_hard_limit_ends_the_process_and_nothing_else(
    fleet_with_results: Fleet, client: redis.Redis
) -> None:
    fleet = fleet_with_results
    worker = fleet.start()
    ended = fleet.send("overlong", "over")
    wait_for(lambda: "over" in fleet.ids("began"))
    began = fleet.lines("began")[0].at
    for n in range(20):
        fleet.send("note", f"{n}")
    assert worker.wait(15) == ExitStatus.HARD_LIMIT
    assert time.time() - began < 5
    with pytest.raises(TimeLimitExceeded):
        ended.get(timeout=5)
    assert client.llen("default") == 20
    assert unacked(client) == 0
    fleet.start()
    fleet.wait(20)
    assert fleet.counts() == {f"{n}": 1 for n in range(20)}
    assert fleet.counts("began") == {"over": 1}


def test_a_task_that_ignores_its_cancellation_takes_the_process_with_it(
    fleet: Fleet, client: redis.Redis
) -> None:
    worker = fleet.start()
    running = fleet.send("stubborn", "stubborn", 60)
    wait_for(lambda: "stubborn" in fleet.ids("began"))
    fleet.send("note", "other")
    fleet.app.control.revoke(running.id, terminate=True)
    assert worker.wait(20) == ExitStatus.TERMINATED
    assert fleet.counts("Cancelled") == {"stubborn": 1}, "asked once"
    assert (client.llen("default"), unacked(client)) == (1, 0)


def test_sigkill_to_a_task_ends_the_process_at_once(fleet: Fleet, client: redis.Redis) -> None:
    worker = fleet.start()
    running = fleet.send("stubborn", "stubborn", 60)
    wait_for(lambda: "stubborn" in fleet.ids("began"))
    began = time.monotonic()
    fleet.app.control.revoke(running.id, terminate=True, signal="SIGKILL")
    assert worker.wait(10) == ExitStatus.TERMINATED
    assert time.monotonic() - began < 4
    assert unacked(client) == 0


def test_a_task_that_crashes_its_process_leaves_its_delivery_behind(
    fleet: Fleet, client: redis.Redis
) -> None:
    worker = fleet.start()
    fleet.send("crash", "crash")
    assert worker.wait(20) == -signal.SIGSEGV
    assert unacked(client) == 1
    assert deliveries.restore(client, fleet.lease(worker)) == 1
    assert (client.llen("default"), unacked(client)) == (1, 0)


def test_a_process_that_grew_makes_room_for_another(fleet: Fleet, client: redis.Redis) -> None:
    worker = fleet.start(
        "--max-memory-per-child=150000",
        environment={"RECYCLE_MIN_AGE": "0.5"},
    )
    for n in range(3):
        fleet.send("note", f"small-{n}")
    fleet.wait(3)
    assert worker.poll() is None
    time.sleep(1.1)
    fleet.send("grow", "grown", 150)
    fleet.wait(4)
    for n in range(200):
        fleet.send("note", f"{n}")
    assert worker.wait(20) == ExitStatus.RECYCLED
    assert unacked(client) == 0
    done = len(fleet.counts())
    assert client.llen("default") == 204 - done


def test_a_process_that_ran_its_number_of_tasks_makes_room_for_another(
    fleet: Fleet, client: redis.Redis
) -> None:
    worker = fleet.start("--max-tasks-per-child=100", environment={"RECYCLE_MIN_AGE_BY_COUNT": "0"})
    fleet.send_many("note", [(f"{n}",) for n in range(300)])
    assert worker.wait(20) == ExitStatus.RECYCLED
    done = fleet.counts()
    assert 100 <= len(done) <= 110
    assert set(done.values()) == {1}
    assert (client.llen("default"), unacked(client)) == (300 - len(done), 0)


# -- stopping ------------------------------------------------------------------------------------


def test_a_warm_shutdown_finishes_the_task_and_gives_back_the_rest(
    fleet: Fleet, client: redis.Redis
) -> None:
    worker = fleet.start()
    fleet.send("nap", "first", 1.5)
    for n in range(30):
        fleet.send("nap", f"{n}", 5)
    wait_for(lambda: "first" in fleet.ids("began"))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    assert fleet.ids() == ["first"]
    assert fleet.ids("began") == ["first"]
    assert (client.llen("default"), unacked(client)) == (30, 0)


def test_a_warm_shutdown_in_the_middle_of_a_batch_loses_and_repeats_nothing(
    fleet: Fleet, client: redis.Redis
) -> None:
    worker = fleet.start()
    fleet.send_many("note", [(f"{n}",) for n in range(1500)])
    wait_for(lambda: len(fleet.ids()) > 500)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(15) == 0
    done = fleet.counts()
    assert set(done.values()) == {1}
    assert (client.llen("default"), unacked(client)) == (1500 - len(done), 0)
    fleet.start()
    fleet.wait(1500)
    assert set(fleet.counts().values()) == {1}


def test_a_cold_shutdown_gives_everything_back(fleet: Fleet, client: redis.Redis) -> None:
    worker = fleet.start()
    fleet.send("nap", "first", 60)
    fleet.send("nap", "second", 60)
    wait_for(lambda: "first" in fleet.ids("began"))
    worker.send_signal(signal.SIGQUIT)
    assert worker.wait(15) == 0
    assert fleet.ids("Abandoned") == ["first"]
    assert (client.llen("default"), unacked(client)) == (2, 0)


def test_remote_shutdown_while_busy(fleet: Fleet, client: redis.Redis) -> None:
    worker = fleet.start()
    fleet.send("nap", "first", 1.5)
    wait_for(lambda: "first" in fleet.ids("began"))
    fleet.app.control.shutdown()
    assert worker.wait(15) == 0
    assert fleet.ids() == ["first"]
    assert unacked(client) == 0


# -- several workers -----------------------------------------------------------------------------


def test_each_task_runs_once_on_two_workers(fleet: Fleet, client: redis.Redis) -> None:
    fleet.start()
    fleet.start()
    fleet.send_many("note", [(f"{n}",) for n in range(1500)])
    fleet.wait(1500)
    assert set(fleet.counts().values()) == {1}
    assert len({line.pid for line in fleet.lines("did")}) == 2
    wait_for(lambda: unacked(client) == 0)
    assert fleet.stop() == [0, 0]


def test_long_tasks_spread_over_the_workers(fleet: Fleet) -> None:
    """A worker whose batches have grown does not sit on tasks that turn out long."""
    fleet.start()
    fleet.start()
    fleet.send_many("note", [(f"{n}",) for n in range(400)])
    fleet.send_many("nap", [(f"long-{n}", 0.1) for n in range(30)])
    fleet.wait(430)
    naps = [line for line in fleet.lines("began") if line.id.startswith("long-")]
    ended = max(line.at for line in fleet.lines("did"))
    shares = Counter(line.pid for line in naps)
    # Perfectly shared they take 1.5 s; on one worker, 3 s.
    assert max(shares.values()) <= 20
    assert ended - min(line.at for line in naps) < 2.5


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_celery_s_own_pools_work_as_well(
    fleet_with_results: Fleet, client: redis.Redis, pool: str
) -> None:
    fleet = fleet_with_results
    worker = fleet.start(pool=pool, concurrency=1 if pool == "solo" else 3)
    fleet.send_many("note", [(f"{n}",) for n in range(300)])
    fleet.wait(300)
    assert set(fleet.counts().values()) == {1}
    counted = chord(
        [sig("add", i, i, app=fleet.app) for i in range(10)], sig("total", app=fleet.app)
    )()
    assert counted.get(timeout=20) == 90
    wait_for(lambda: unacked(client) == 0)
    # Prefetch is a message for each slot: with all slots busy no more than that is held.
    for n in range(10):
        fleet.send("nap", f"nap-{n}", 1.0)
    slots = 1 if pool == "solo" else 3
    wait_for(lambda: len(fleet.counts("began")) == slots)
    time.sleep(0.3)
    assert unacked(client) == slots
    fleet.wait(310)
    assert fleet.stop(worker) == [0]
    assert (client.llen("default"), unacked(client)) == (0, 0)
