"""Limits over all workers together: kept, fair, without a busy worker, freed by the dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from types import ModuleType
from uuid import uuid4

import psycopg
import pytest
from tests.hazards import Crew, application, crew, ended

from ironbeat.runs.leases import Lease
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import Claim
from ironbeat.runs.throttles import Throttles, read_standing
from ironbeat.settings import Settings
from ironbeat.throttle import Throttle

MESSAGE = '{"body": [[], {}, {}], "headers": {}, "properties": {}, "routing_key": "default"}'


# -- the places themselves


@pytest.fixture
def ledger(database_url: str) -> Ledger:
    return Ledger(database_url, lease_seconds=1.0)


@pytest.fixture
def lease(database_url: str) -> Iterator[Lease]:
    held = Lease("worker", "w", url=database_url, lease_seconds=1.0, renew_seconds=0.3)
    held.start()
    while held.renewed_at is None:
        time.sleep(0.02)
    yield held
    held.stop()


class Runs:
    """Runs that a worker claims and that ask to begin."""

    def __init__(self, ledger: Ledger, lease: str, throttle: Throttle) -> None:
        self.ledger, self.lease, self.throttle = ledger, lease, throttle
        self.throttles = Throttles(ledger)

    def ask(self, id: str, name: str = "t") -> bool:
        claim = Claim(id, "t", datetime.now(UTC), "default", "", None)
        verdict = self.ledger.claim([claim], lease=self.lease, worker="w")[id]
        assert verdict.attempt is not None, verdict
        return self.throttles.enter(self.throttle, name, id, verdict.attempt, self.lease, MESSAGE)

    def end(self, id: str, name: str = "t") -> list[str]:
        self.ledger.end([id], "cancelled", "test", running=True)
        return self.throttles.leave(name, id)


def test_no_more_at_once_than_allowed_and_in_order(ledger: Ledger, lease: Lease) -> None:
    runs = Runs(ledger, lease.id, Throttle(concurrency=2))
    assert [runs.ask(id) for id in "abcde"] == [True, True, False, False, False]
    waiting = ledger.get("c")
    assert (waiting.state, waiting.attempt, waiting.lease_id) == ("pending", 0, None)
    assert waiting.message, "its message went with the delivery"
    assert runs.end("a") == ["c"], "who waits longest is called"
    assert not runs.ask("f"), "a newcomer does not overtake"
    assert not runs.ask("d"), "nor one that comes without having been called"
    assert runs.ask("c")
    assert runs.end("c") == ["d"] and runs.end("b") == ["e"]
    assert runs.ask("e") and runs.ask("d")
    assert runs.end("d") == ["f"]


def test_who_was_cancelled_while_it_waited_keeps_nobody_waiting(
    ledger: Ledger, lease: Lease
) -> None:
    runs = Runs(ledger, lease.id, Throttle(concurrency=1))
    assert [runs.ask(id) for id in "abc"] == [True, False, False]
    ledger.end(["b"], "cancelled", "test")
    assert runs.end("a") == ["c"]


def test_a_rate_promises_each_its_start(ledger: Ledger, lease: Lease, database_url: str) -> None:
    runs = Runs(ledger, lease.id, Throttle(rate="5/s"))
    assert [runs.ask(id) for id in "abcd"] == [True, False, False, False]
    with psycopg.connect(database_url) as connection:
        times = [
            row[0]
            for row in connection.execute(
                "SELECT due_at FROM ironbeat.throttle_places ORDER BY run_id"
            )
        ]
    assert [(b - a).total_seconds() for a, b in pairwise(times)] == [pytest.approx(0.2)] * 2
    for id, promised in zip("bcd", times, strict=True):
        assert ledger.get(id).publish_at >= promised
    assert not runs.ask("c"), "a copy that comes early waits on"
    time.sleep(1.0)
    assert runs.ask("b") and runs.ask("c") and runs.ask("d")


def test_a_burst_after_a_pause(ledger: Ledger, lease: Lease) -> None:
    runs = Runs(ledger, lease.id, Throttle(rate="1/m", burst=3))
    assert [runs.ask(id) for id in "abcd"] == [True, True, True, False]


def test_keys_have_limits_of_their_own(ledger: Ledger, lease: Lease) -> None:
    runs = Runs(ledger, lease.id, Throttle(concurrency=1))
    assert runs.ask("a", "t:1") and runs.ask("b", "t:2") and not runs.ask("c", "t:1")


def test_the_places_of_the_dead_are_freed(ledger: Ledger, lease: Lease, database_url: str) -> None:
    doomed = Lease("worker", "d", url=database_url, lease_seconds=1.0, renew_seconds=0.3)
    doomed.start()
    while doomed.renewed_at is None:
        time.sleep(0.02)
    runs = Runs(ledger, doomed.id, Throttle(concurrency=1))
    assert runs.ask("a")
    runs.lease = lease.id
    assert not runs.ask("b")
    assert Throttles(ledger).sweep() == [], "it lives"
    # Dead: silent, its work taken over.
    doomed._stop.set()
    deadline = time.monotonic() + 20
    heir = Lease(
        "worker", "h", heir=lambda *_: None, url=database_url, lease_seconds=1.0, renew_seconds=0.3
    )
    heir.start()
    try:
        while not (called := Throttles(ledger).sweep()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        heir.stop()
    assert called == ["b"] and runs.ask("b")


def test_many_at_once_keep_the_limit(ledger: Ledger, lease: Lease, database_url: str) -> None:
    """Sixteen threads ask and leave at the same time; nobody is forgotten."""
    throttle = Throttle(concurrency=3)
    executing, most, done = set(), [0], set()
    guard = threading.Lock()
    ids = [uuid4().hex for _ in range(60)]
    queue = list(ids)
    runs = Runs(ledger, lease.id, throttle)

    def work() -> None:
        while len(done) < len(ids):
            with guard:
                id = queue.pop() if queue else None
            if id is None:
                time.sleep(0.01)
                continue
            if not runs.ask(id):
                continue
            with guard:
                executing.add(id)
                most[0] = max(most[0], len(executing))
            time.sleep(0.005)
            with guard:
                executing.discard(id)
            called = runs.end(id)
            with guard:
                done.add(id)
                queue.extend(called)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(done) < len(ids) and time.monotonic() < deadline:
        with guard:
            idle = not queue and not executing
        if idle:
            # As beat does: a place that was called and taken meanwhile.
            with guard:
                queue.extend(Throttles(ledger).sweep())
        time.sleep(0.05)
    assert done == set(ids)
    for thread in threads:
        thread.join(10)
    assert most[0] == 3
    with psycopg.connect(database_url) as connection:
        assert read_standing(connection) == ()


def test_reservations_nobody_used_are_forgotten(
    ledger: Ledger, lease: Lease, database_url: str
) -> None:
    runs = Runs(ledger, lease.id, Throttle(rate="1/h"))
    assert [runs.ask(id) for id in "ab"] == [True, False]
    ledger.end(["b"], "cancelled", "test")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE ironbeat.throttle_places SET due_at = now() - interval '2 h'")
        connection.execute("UPDATE ironbeat.throttles SET next_at = now() - interval '2 days'")
        Throttles(ledger).forget_unused()
        Throttles(ledger).forget_unused()
        count = connection.execute(
            "SELECT (SELECT count(*) FROM ironbeat.throttles),"
            " (SELECT count(*) FROM ironbeat.throttle_places)"
        ).fetchone()
    assert count == (0, 0)


# -- in workers


@pytest.fixture(scope="module")
def hazards(
    module_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ModuleType, Crew]]:
    folder = tmp_path_factory.mktemp("throttled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRONBEAT_LEASE_SECONDS", "2")
        patch.setenv("IRONBEAT_LEASE_RENEW_SECONDS", "0.5")
        module = application(patch, folder / "traces")
        with crew(folder, folder / "traces", "threads") as found:
            found.start("w0")
            found.start("w1")
            yield module, found


def overlap(spans: list[tuple[float, float]]) -> int:
    """The largest number of spans that hold at the same time."""
    events = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    most = level = 0
    for _, step in events:
        level += step
        most = max(most, level)
    return most


def spans(crew: Crew, begin: str, end: str) -> list[tuple[float, float]]:
    begins = {what: at for event, what, at, _ in crew.traces() if event == begin}
    return [(begins[what], at) for event, what, at, _ in crew.traces() if event == end]


@pytest.fixture
def beat(hazards: tuple[ModuleType, Crew]) -> Iterator[None]:
    """A beat: it publishes what is due, and sweeps."""
    from ironbeat.schedules.beat import Beat

    ending = threading.Event()
    found = Beat(hazards[0].app, stopping=ending.is_set)

    def keep() -> None:
        while not ending.is_set():
            found.tick()

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    yield
    ending.set()
    thread.join(10)
    found._disconnect()


def test_two_at_a_time_over_two_workers(hazards: tuple[ModuleType, Crew], beat: None) -> None:
    module, crew = hazards
    began = time.monotonic()
    ids = [module.two_at_a_time.delay(0.1, f"n{n}").id for n in range(30)]
    quick = [module.quick.delay(f"beside{n}").id for n in range(20)]
    for id in quick:
        assert ended(crew, module.app.ironbeat.ledger, id).state == "succeeded"
    for id in ids:
        assert ended(crew, module.app.ironbeat.ledger, id).state == "succeeded"
    seconds = time.monotonic() - began
    found = spans(crew, "two-begin", "two-end")
    assert len(found) == 30, "each ran once"
    assert overlap(found) == 2
    pids = {pid for event, _, _, pid in crew.traces() if event == "two-begin"}
    assert len(pids) == 2, "both workers had their share"
    # Thirty of 0.1 s, two at a time, are 1.5 s; the places are not left empty for long.
    assert seconds < 30
    runs = [module.app.ironbeat.ledger.get(id) for id in ids]
    assert {run.attempt for run in runs} == {1}, "what went back does not count as an attempt"


def test_a_rate_over_two_workers(hazards: tuple[ModuleType, Crew], beat: None) -> None:
    module, crew = hazards
    ids = [module.twenty_a_second.delay(f"r{n}").id for n in range(60)]
    for id in ids:
        assert ended(crew, module.app.ironbeat.ledger, id).state == "succeeded"
    times = sorted(at for event, _, at, _ in crew.traces() if event == "twenty")
    assert len(times) == 60
    # The n-th start is never before its time; a late publisher may bring some together.
    assert all(at - times[0] > n / 20 - 1.0 for n, at in enumerate(times))


def test_one_for_each_customer(hazards: tuple[ModuleType, Crew], beat: None) -> None:
    module, crew = hazards
    ids = [module.one_for_each_customer.delay(f"c{n % 4}", 0.05).id for n in range(24)]
    for id in ids:
        assert ended(crew, module.app.ironbeat.ledger, id).state == "succeeded"
    for customer in range(4):
        events = [
            event for event, what, _, _ in sorted(crew.traces(), key=lambda each: each[2])
            if what == f"c{customer}" and event.startswith("customer")
        ]  # fmt: skip
        assert events == ["customer-begin", "customer-end"] * 6


def test_a_dead_worker_s_place_is_given_to_another(
    hazards: tuple[ModuleType, Crew], beat: None
) -> None:
    module, crew = hazards
    ids = [module.two_at_a_time.delay(3, f"d{n}").id for n in range(4)]
    crew.wait(lambda: {"d0", "d1"} <= {what for e, what, *_ in crew.traces() if e == "two-begin"})
    for program in list(crew.programs.values()):
        program.process.kill()
    for id in ids:
        assert ended(crew, module.app.ironbeat.ledger, id, 90).state == "succeeded"
