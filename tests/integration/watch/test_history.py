"""The history of queues and limits, and what is stuck, from real tables and a real broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import redis

from ironbeat import watch
from ironbeat.watch import history
from ironbeat.watch.lately import names, read_coming, read_past
from ironbeat.watch.punctuality import read_late_fires
from ironbeat.watch.stuck import find_stuck


def test_one_look_a_slot_whoever_asks(settings, ledger):
    assert history.sample(settings, every=3600) is True
    assert history.sample(settings, every=3600) is False
    assert ledger.connection.execute("SELECT count(*) FROM ironbeat.samples").fetchone() == (1,)
    queues = ledger.connection.execute("SELECT queue, length FROM ironbeat.queue_samples")
    assert ("default", 0) in queues.fetchall()
    [(limits,)] = ledger.connection.execute(
        "SELECT count(*) FROM ironbeat.limit_samples"
    ).fetchall()
    assert limits == len(watch.status(settings, schedule_limit=0).limits)


def test_what_is_older_than_is_kept_goes_with_the_next_look(settings, ledger):
    ledger.connection.execute(
        "INSERT INTO ironbeat.queue_samples (at, queue, length) VALUES (%s, 'old', 1)",
        (datetime.now(UTC) - history.KEPT - timedelta(minutes=1),),
    )
    history.sample(settings)
    left = ledger.connection.execute("SELECT FROM ironbeat.queue_samples WHERE queue = 'old'")
    assert left.fetchone() is None


def noted(connection: psycopg.Connection, queue: str, ago: float, length: int, oldest=None):
    connection.execute(
        "INSERT INTO ironbeat.queue_samples (at, queue, length, oldest)"
        " VALUES (now() - make_interval(secs => %s), %s, %s, %s)",
        (ago, queue, length, oldest),
    )


def test_the_longest_queues_are_drawn_each_step_at_its_worst(ledger):
    for number in range(12):
        noted(ledger.connection, f"q{number}", 100, number)
    noted(ledger.connection, "q11", 95, 3)
    course = history.read_queues(ledger.connection, timedelta(hours=24))
    assert {line.queue for line in course.lines} == {f"q{n}" for n in range(4, 12)}
    [longest] = [line for line in course.lines if line.queue == "q11"]
    # Both looks may lie in one step, or in two.
    assert next(n for n in longest.lengths if n is not None) == 11
    assert len(course.times) == len(longest.lengths) <= history.MOST_POINTS + 1
    [one] = history.read_queues(ledger.connection, timedelta(hours=3), "q2").lines
    assert one.queue == "q2"


def test_since_when_a_queue_waits_and_a_limit_is_broken(ledger):
    for ago, length in ((400, 5), (300, 0), (200, 4), (100, 6)):
        noted(ledger.connection, "docks", ago, length)
    for ago, ok in ((400, False), (300, True), (200, False), (100, False)):
        ledger.connection.execute(
            "INSERT INTO ironbeat.limit_samples VALUES"
            " (now() - make_interval(secs => %s), 'queue_length', 1, %s)",
            (ago, ok),
        )
    broken, waiting = history.read_since(ledger.connection)
    now = datetime.now(UTC)
    assert 195 < (now - waiting["docks"]).total_seconds() < 230
    assert 195 < (now - broken["queue_length"]).total_seconds() < 230


def test_a_queue_that_nobody_consumes_is_stuck_and_says_since_when(settings, ledger):
    ledger.lease("w", queues=("default",), info={"running": []})
    with redis.Redis.from_url(settings.broker_url.get_secret_value()) as client:
        client.lpush("metadata_queue", "{}")
    since = datetime.now(UTC) - timedelta(minutes=9)
    found = find_stuck(watch.status(settings, schedule_limit=0), {"metadata_queue": since})
    [stuck] = [each for each in found if each.kind == "queue_unconsumed"]
    assert (stuck.subject, stuck.since, stuck.figures["length"]) == ("metadata_queue", since, 1)
    assert {"no_beat"} <= {each.kind for each in found}
    assert "no_worker" not in {each.kind for each in found}
    assert found[0].severity == "critical"


def test_late_fires_less_their_jitter(ledger):
    punctual = ledger.schedule("punctual", jitter_seconds=100)
    late = ledger.schedule("late")
    ledger.fire(punctual, ago=50, late=120)
    ledger.fire(late, ago=40, late=75)
    [found] = read_late_fires(ledger.connection, datetime.now(UTC) - timedelta(hours=1))
    assert found.name == "late" and 74 < found.late < 76


def test_schedules_a_page_at_a_time_with_their_past_and_future(ledger):
    ids = [ledger.schedule(f"s{n:02}", due_in=60.0 + n, expression="1h") for n in range(7)]
    ledger.schedule("asleep", enabled=False, task="other.task")
    assert names(ledger.connection, limit=3) == ["asleep", "s00", "s01"]
    assert names(ledger.connection, after="s01", limit=3) == ["s02", "s03", "s04"]
    assert names(ledger.connection, text="OTHER") == ["asleep"]
    assert names(ledger.connection, enabled=False) == ["asleep"]
    assert names(ledger.connection, by_next=True, limit=2) == ["s00", "s01"]

    for number in range(25):
        at = datetime.now(UTC) - timedelta(minutes=number + 1)
        ledger.ended(f"r{number:02}", ago=60.0 * (number + 1), schedule_id=ids[0], scheduled_for=at)
    past = read_past(ledger.connection, ids[:2])
    assert [run.id for run in past[ids[0]]] == [f"r{n:02}" for n in range(19, -1, -1)]
    assert past[ids[1]] == []

    now = datetime.now(UTC)
    [first, *_] = read_coming(ledger.connection, ["s00", "s01", "asleep"], now)
    assert first.name == "s00" and first.number == 24 and len(first.at) == 24
    assert all(now < at < now + timedelta(days=1) for at in first.at)
