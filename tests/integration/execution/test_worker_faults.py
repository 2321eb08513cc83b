"""What workers do when they, their broker or the network between them fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from cables import cable
from workers import Fleet, wait_for

from ironbeat.embedded import ServerProcess, temporary_redis
from ironbeat.execution import deliveries
from ironbeat.execution.leaving import ExitStatus
from ironbeat.execution.transport import Channel


@pytest.fixture
def fleet(broker: str, tmp_path: Path) -> Iterator[Fleet]:
    """No workers yet."""
    fleet = Fleet(broker, tmp_path)
    yield fleet
    fleet.close()


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    """A broker of one's own, whose data survive being killed."""
    with temporary_redis(append_only=True) as server:
        yield server


@pytest.fixture
def own_fleet(server: ServerProcess, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet on the broker of one's own."""
    fleet = Fleet(server.url, tmp_path)
    yield fleet
    fleet.close()


def test_kill_9_loses_nothing_and_repeats_no_more_than_a_batch(
    fleet: Fleet, client: redis.Redis
) -> None:
    survivor = fleet.start()
    total = 0
    for _ in range(3):
        victim = fleet.start()
        fleet.send_many("note", [(f"{total + n}",) for n in range(2000)])
        total += 2000
        wait_for(lambda victim=victim: len(fleet.lines("did", pid=victim.pid)) > 50)
        victim.kill()
        victim.wait()
        deliveries.restore(client, fleet.lease(victim))
    fleet.wait(total)
    counts = fleet.counts()
    assert set(counts) == {f"{n}" for n in range(total)}
    # One whose outcomes are being written, and one that is executed meanwhile.
    assert sum(counts.values()) - total <= 3 * 2 * Channel.batch_limit
    wait_for(lambda: client.hlen("unacked") == 0)
    assert client.zcard("unacked_index") == 0
    assert survivor.poll() is None


@pytest.mark.parametrize("pool", ["custom", "prefork"])
def test_a_long_task_runs_once_however_often_the_broker_restarts(
    own_fleet: Fleet, server: ServerProcess, pool: str
) -> None:
    """Renewed while it lives; its delivery is kept while its worker connects anew."""
    options = {"lease_timeout": 2, "unacked_restore_interval": 0.2}
    for _ in range(2):
        own_fleet.start(pool=pool, conf={"broker_transport_options": options})
    own_fleet.send("nap", "long", 9)
    own_fleet.send("note", "later", eta=datetime.now(UTC) + timedelta(seconds=9))
    wait_for(lambda: own_fleet.ids("began") == ["long"])
    for restart in (server.stop, server.kill):
        time.sleep(1.5)
        restart()
        time.sleep(1)
        server.start()
    own_fleet.wait(2)
    assert own_fleet.counts() == {"long": 1, "later": 1}
    assert own_fleet.counts("began") == {"long": 1}
    with redis.Redis.from_url(server.url) as client:
        wait_for(lambda: client.hlen("unacked") == 0)
        # It would have come back by now.
        time.sleep(3)
        assert own_fleet.counts("began") == {"long": 1}
    assert own_fleet.stop() == [0, 0]


def test_what_a_dead_worker_held_comes_back_by_itself(
    broker: str, fleet: Fleet, client: redis.Redis
) -> None:
    """Without anybody who notices that its lease lapsed: after the time-out."""
    options = {"lease_timeout": 2, "unacked_restore_interval": 0.2}
    victim = fleet.start(conf={"broker_transport_options": options})
    fleet.send("nap", "held", 3)
    wait_for(lambda: fleet.ids("began") == ["held"])
    victim.kill()
    victim.wait()
    other = fleet.start(conf={"broker_transport_options": options})
    ready = fleet.lines("ready", pid=other.pid)[0].at
    fleet.wait(1)
    assert fleet.counts("began") == {"held": 2}
    assert fleet.lines("began")[1].at - ready < 8


def test_the_worker_stays_when_the_broker_restarts_under_load(
    own_fleet: Fleet, server: ServerProcess
) -> None:
    workers = [own_fleet.start(), own_fleet.start()]
    total = 0
    for restart in (server.stop, server.kill, server.stop, server.kill):
        own_fleet.send_many("nap", [(f"{total + n}", 0.005) for n in range(300)])
        total += 300
        time.sleep(0.4)
        restart()
        time.sleep(1)
        server.start()
        back = time.monotonic()
        own_fleet.wait(total)
        assert time.monotonic() - back < 20
    assert [worker.poll() for worker in workers] == [None, None]
    assert own_fleet.counts() == {f"{n}": 1 for n in range(total)}
    with redis.Redis.from_url(server.url) as client:
        wait_for(lambda: client.hlen("unacked") == 0)


def test_a_broker_that_pauses_is_waited_for(own_fleet: Fleet, server: ServerProcess) -> None:
    worker = own_fleet.start(conf={"broker_transport_options": {"reply_timeout": 1}})
    own_fleet.send_many("nap", [(f"{n}", 0.01) for n in range(200)])
    time.sleep(0.5)
    server.pause()
    time.sleep(4)
    server.resume()
    own_fleet.wait(200)
    assert set(own_fleet.counts().values()) == {1}
    assert worker.poll() is None


def test_a_cut_cable_is_noticed(fleet: Fleet, broker: str) -> None:
    """Connections that are open on this side only, to which nobody will ever answer."""
    with cable(broker) as line:
        fleet.start(
            broker=line.url,
            conf={
                "broker_transport_options": {
                    "idle_check": 1,
                    "reply_timeout": 1,
                    "socket_timeout": 2,
                    "health_check_interval": 2,
                }
            },
        )
        fleet.send("note", "before")
        fleet.wait(1)
        assert line.cut() >= 2
        cut = time.monotonic()
        fleet.send("note", "after")
        fleet.wait(2)
        assert time.monotonic() - cut < 12
        # Remote control came back as well.
        answered = wait_for(lambda: fleet.app.control.inspect(timeout=1).ping(), 30)
        assert list(answered.values()) == [{"ok": "pong"}]


def test_a_worker_that_consumes_nothing_ends(fleet: Fleet) -> None:
    worker = fleet.start(environment={"DEAF": "1", "STALL_SECONDS": "3"})
    time.sleep(5)
    assert worker.poll() is None, "an empty queue is no reason"
    fleet.send("note", "waiting")
    assert worker.wait(20) == ExitStatus.STALLED
    assert "threads of a worker that consumes nothing" in fleet.output()


def test_a_worker_busy_with_a_long_task_is_not_taken_for_one_that_consumes_nothing(
    fleet: Fleet,
) -> None:
    worker = fleet.start(environment={"STALL_SECONDS": "1"})
    fleet.send("nap", "long", 6)
    fleet.send("note", "waiting")
    fleet.wait(2)
    assert worker.poll() is None
