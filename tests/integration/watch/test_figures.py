"""The figures that status and report read, from real tables and a real broker."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import redis
from kombu import Connection

from ironbeat import watch
from ironbeat.watch import queues, stores
from ironbeat.watch.backlog import read_backlog
from ironbeat.watch.course import read_course
from ironbeat.watch.fleet import read_fleet
from ironbeat.watch.outcomes import read_between, read_failures, read_outcomes, read_running
from ironbeat.watch.punctuality import read_punctuality, read_schedules


@pytest.fixture
def broker(settings):
    client = redis.Redis.from_url(settings.broker_url.get_secret_value())
    yield client
    client.close()


def test_outcomes_of_a_window(ledger):
    for number in range(8):
        ledger.ended(f"good-{number}", took=number + 1.0, waited=0.5)
    ledger.ended("bad", "failed", error="boom")
    ledger.ended("worse", "dead", error="killed its worker")
    ledger.ended("copy", "skipped", took=0.0, waited=0.0)
    ledger.ended("slow-by-retry", "succeeded", took=9.0, waited=600.0, attempt=2, retries=1)
    ledger.ended("long-ago", "failed", ago=4000)

    figures = read_outcomes(ledger.connection, 3600)

    assert figures.by_state == {"succeeded": 9, "failed": 1, "dead": 1, "skipped": 1}
    assert figures.ended == 12 and figures.complete and figures.retried == 1
    assert figures.success_rate == pytest.approx(9 / 11)
    assert figures.error_rate == pytest.approx(2 / 11)
    assert figures.run.count == 9
    assert figures.run.mean == pytest.approx(45 / 9)
    assert figures.run.p50 == pytest.approx(5.0) and figures.run.max == pytest.approx(9.0)
    # A retried run's last start says nothing of how long it waited in a queue.
    assert figures.wait.max == pytest.approx(0.5)
    assert figures.per_second == pytest.approx(12 / 3600)


def test_a_run_for_later_waits_from_its_eta_on(ledger):
    eta = datetime.now(UTC) - timedelta(seconds=12)
    ledger.ended("later", ago=10.0, took=1.0, waited=500.0, eta=eta)
    assert read_outcomes(ledger.connection, 60).wait.max == pytest.approx(1.0, abs=0.2)


def test_no_runs_give_no_rates(ledger):
    figures = read_outcomes(ledger.connection, 3600)
    assert (figures.ended, figures.success_rate, figures.run.mean) == (0, None, None)


def test_what_failed_and_why(ledger):
    ledger.ended("old", "failed", ago=90.0, error="first")
    ledger.ended("new", "dead", ago=5.0, error="second", schedule_name="nightly", worker="w1")
    ledger.ended("late", "expired", ago=50.0, reason="not started before it expired")
    ledger.ended("good")
    now = datetime.now(UTC)
    found = read_failures(ledger.connection, now - timedelta(hours=1), now)
    assert [(one.id, one.error) for one in found] == [
        ("new", "second"),
        ("late", "not started before it expired"),
        ("old", "first"),
    ]
    assert found[0].schedule == "nightly" and found[0].worker == "w1"
    assert read_failures(ledger.connection, now - timedelta(hours=1), now, limit=1) == found[:1]


def test_what_runs_now(ledger):
    ledger.live("waiting", "pending")
    ledger.live("fresh", "running", started_at=2.0, lease_id="a", worker="w1")
    ledger.live("stuck", "running", started_at=700.0, lease_id="b", worker="w2")
    found = read_running(ledger.connection)
    assert [run.id for run in found] == ["stuck", "fresh"]
    assert found[0].seconds == pytest.approx(700, abs=1)


def test_what_happened_between_two_times(ledger):
    now = datetime.now(UTC)
    since, until = now - timedelta(minutes=60), now - timedelta(minutes=30)
    nightly = ledger.schedule("nightly", edited_at=now - timedelta(minutes=45))
    ledger.ended("inside", ago=40 * 60, schedule_name="nightly")
    ledger.ended("across", ago=20 * 60, took=15 * 60, schedule_name="nightly")
    ledger.ended("failed", "failed", ago=50 * 60, error="boom")
    ledger.ended("before", ago=70 * 60)
    ledger.ended("after", ago=10 * 60)
    ledger.live("endless", "running", started_at=35 * 60, lease_id="a")
    ledger.fire(nightly, ago=40 * 60, late=0.2)
    ledger.fire(nightly, ago=41 * 60, late=90.0)
    ledger.fire(nightly, ago=10, late=0.0)

    found = read_between(ledger.connection, since, until)

    assert {(group.schedule, group.state): group.runs for group in found.groups} == {
        ("nightly", "succeeded"): 2,
        (None, "failed"): 1,
    }
    assert found.runs == 3
    assert [failure.id for failure in found.failures] == ["failed"]
    assert (found.fires, found.late_fires, found.still_running) == (2, 1, 1)
    assert [edit.name for edit in found.edits] == ["nightly"]


def test_how_a_period_went_step_by_step(ledger):
    now = datetime.now(UTC)
    since, until = now - timedelta(minutes=60), now
    ledger.ended("first", ago=55 * 60, took=2.0, waited=1.0)
    ledger.ended("second", ago=54 * 60, took=4.0, waited=3.0)
    ledger.ended("retried", ago=53 * 60, took=3.0, waited=500.0, attempt=2, retries=1)
    ledger.ended("bad", "failed", ago=5 * 60, took=90.0, error="boom")
    ledger.ended("gone", "dead", ago=5 * 60, error="killed its worker")
    ledger.ended("copy", "skipped", ago=5 * 60)
    ledger.ended("before", ago=61 * 60)

    found = read_course(ledger.connection, since, until, steps=6)

    assert [step.since for step in found] == [since + timedelta(minutes=10 * n) for n in range(6)]
    counts = [(step.succeeded, step.failed, step.other) for step in found]
    assert counts == [(3, 0, 0), *[(0, 0, 0)] * 4, (0, 2, 1)]
    assert found[0].run_mean == pytest.approx(3.0) and found[0].run_p95 == pytest.approx(3.9)
    # A retried run's last start says nothing of how long it waited in a queue.
    assert found[0].wait_mean == pytest.approx(2.0)
    assert found[1].run_mean is None and found[1].wait_mean is None
    # What failed says nothing of how long the work takes.
    assert found[5].run_mean is None


def test_a_schedule_shows_its_last_run_and_its_next(ledger):
    now = datetime.now(UTC)
    plain = ledger.schedule("a-plain", due_in=30)
    ledger.schedule("b-paused", due_in=30, enabled=False)
    busy = ledger.schedule("c-busy", due_in=-7)
    times = {"schedule_id": plain, "scheduled_for": now - timedelta(seconds=60)}
    ledger.ended("first", ago=60, took=2.0, **times)
    times["scheduled_for"] = now - timedelta(seconds=30)
    ledger.ended("second", "failed", ago=30, took=3.0, error="boom", **times)
    times["scheduled_for"] = now - timedelta(seconds=1)
    ledger.ended("third", "skipped", ago=1, took=0.0, **times)
    ledger.live("now", "running", schedule_id=busy, scheduled_for=now, started_at=1.0, lease_id="a")

    a, b, c = read_schedules(ledger.connection)

    assert (a.last_run_id, a.last_state, a.last_error) == ("second", "failed", "boom")
    assert a.last_seconds == pytest.approx(3.0) and a.overdue_seconds == 0
    assert (a.next_at - now).total_seconds() == pytest.approx(30, abs=2)
    assert b.next_at is None and b.last_run_id is None
    assert (c.last_run_id, c.last_state, c.last_ended_at) == ("now", "running", None)
    assert c.overdue_seconds == pytest.approx(7, abs=2)
    assert [s.name for s in read_schedules(ledger.connection, after="a-plain", limit=1)] == [
        "b-paused"
    ]
    assert [s.name for s in read_schedules(ledger.connection, names=["c-busy"])] == ["c-busy"]


def test_punctuality_allows_for_jitter_and_counts_what_was_missed(ledger):
    prompt = ledger.schedule("prompt", due_in=-2.0)
    jittery = ledger.schedule("jittery", due_in=100.0, jitter_seconds=30)
    ledger.schedule("stuck", due_in=-120.0)
    ledger.schedule("paused", due_in=-500.0, enabled=False)
    ledger.fire(prompt, ago=10, late=0.25)
    ledger.fire(jittery, ago=10, late=30.5)
    ledger.fire(jittery, ago=20, late=12.0)
    ledger.fire(prompt, ago=30, late=61.0)
    figures = read_punctuality(ledger.connection)
    assert (figures.schedules, figures.enabled, figures.overdue) == (4, 3, 2)
    assert figures.missed == 2 and figures.missed_names == ("stuck",)
    assert figures.longest_overdue_seconds == pytest.approx(120, abs=2)
    assert figures.fires == 4
    assert figures.late_p50 == pytest.approx(0.375, abs=0.01)
    assert figures.late_max == pytest.approx(61.0, abs=0.01)


def test_the_fleet_tolerates_processes_that_tell_little(ledger):
    ledger.lease(
        "w1",
        queues=("default",),
        info={
            "rss_mb": 91.5,
            "cpu_pct": 12,
            "concurrency": 1,
            "consumed": 44,
            "version": "0.1.0",
            "tasks": ["a.b"],
            "running": [{"id": "x", "task": "a.b", "since": "2026-01-01T00:00:00+00:00"}],
        },
    )
    ledger.lease("w2", lapsed=30.0, renewed=36.0)
    ledger.lease("w3", lapsed=3600.0)
    ledger.lease("w4", info={"running": "nonsense", "rss_mb": None, "tasks": None})
    ledger.lease("b1", kind="beat", ticked=3.0)
    ledger.lease("b2", kind="beat", info={"beat": {"last_tick_at": "yesterday"}})
    fleet = read_fleet(ledger.connection)
    assert [(w.id, w.alive) for w in fleet.workers] == [("w1", True), ("w4", True), ("w2", False)]
    first = fleet.workers[0]
    assert (first.rss_mb, first.concurrency, first.tasks, first.consumed) == (91.5, 1, ("a.b",), 44)
    assert first.running[0].task == "a.b" and first.running[0].seconds > 1000
    assert fleet.workers[1].running == ()
    assert fleet.workers[2].silent_seconds == pytest.approx(36, abs=2)
    assert fleet.beats[0].tick_age_seconds == pytest.approx(3, abs=1)
    assert (fleet.beats[0].fired, fleet.beats[1].last_tick_at) == (7, None)


def test_the_backlog_and_the_outbox(ledger):
    ledger.live("due", "pending", publish_at=20.0)
    ledger.live("later", "retrying", publish_at=-60.0, queue="metadata_queue")
    ledger.live("sent", "published")
    ledger.connection.execute(
        "INSERT INTO ironbeat.runs (id, task, state, publish_at) "
        "VALUES ('held', 't', 'pending', 'infinity')"
    )
    found = read_backlog(ledger.connection)
    assert found.by_queue == {
        "default": {"pending": 2, "published": 1},
        "metadata_queue": {"retrying": 1},
    }
    assert found.by_state == {"pending": 2, "published": 1, "retrying": 1}
    assert (found.outbox_due, found.outbox_later, found.outbox_held) == (1, 1, 1)
    assert found.outbox_age_seconds == pytest.approx(20, abs=2)


def publish(settings, queue, priority, id, age):
    created = datetime.now(UTC) - timedelta(seconds=age)
    with Connection(settings.broker_url.get_secret_value()) as connection:
        connection.Producer().publish(
            [[], {}, {}],
            serializer="json",
            routing_key=queue,
            priority=priority,
            headers={
                "id": id,
                "task": "a.b",
                "ironbeat": {"created_at": created.isoformat(), "schedule": "nightly"},
            },
            declare=[connection.SimpleQueue(queue).queue],
            exchange="",
        )


def test_a_queue_is_the_sum_of_its_priorities_as_kombu_lays_them(settings, broker):
    for number, (priority, age) in enumerate([(0, 5.0), (9, 50.0), (9, 2.0), (4, 7.0)]):
        publish(settings, "metadata_queue", priority, f"m{number}", age)
    empty, queue = queues.read_queues(broker, ["default", "metadata_queue"])
    assert (empty.length, empty.oldest) == (0, None)
    assert queue.length == 4
    assert queue.by_priority == {0: 1, 3: 1, 6: 0, 9: 2}
    assert queue.oldest.id == "m1" and queue.oldest.schedule == "nightly"
    assert queue.oldest_age_seconds == pytest.approx(50, abs=2)
    found = queues.next_messages(broker, "metadata_queue", limit=3)
    assert [(one.id, one.priority) for one in found] == [("m0", 0), ("m3", 3), ("m1", 9)]


def test_a_message_of_another_making_is_counted(broker):
    broker.lpush("default", "not json", json.dumps({"headers": None}), json.dumps([1]))
    (queue,) = queues.read_queues(broker, ["default"])
    assert queue.length == 3 and queue.oldest_age_seconds is None
    assert len(queues.next_messages(broker, "default")) == 3


def test_the_brokers_own_state(broker):
    broker.zadd("unacked_index", {"tag-1": 1.0, "tag-2": 2.0})
    broker.lpush("ironbeat.unreadable", "?")
    found = queues.read_broker(broker)
    assert (found.unacked, found.unreadable) == (2, 1) and found.policy == "noeviction"
    assert found.used_memory_mb > 0.5 and found.max_memory_mb == pytest.approx(2147, abs=1)


def test_status_answers_from_both_stores(settings, ledger, broker):
    ledger.lease("w1", queues=("metadata_queue",), info={"rss_mb": 450.0})
    ledger.lease("b1", kind="beat", ticked=1.0)
    ledger.schedule("nightly")
    ledger.ended("bad", "failed", error="boom")
    ledger.live("stuck", "running", started_at=700.0, lease_id="w1")
    publish(settings, "metadata_queue", 0, "m", 3.0)

    found = watch.status(settings)

    assert found.health.status == "healthy"
    assert found.problems == () or all("workload" in problem for problem in found.problems)
    queue = {one.name: one for one in found.queues}["metadata_queue"]
    assert (queue.length, queue.consumers) == (1, 1)
    assert {limit.name for limit in found.broken} == {
        "success_rate",
        "high_error_rate",
        "task_running_long",
        "memory_high",
    }
    document = json.loads(json.dumps(watch.plain(found)))
    assert document["failures"][0]["error"] == "boom"
    assert document["schedules"][0]["name"] == "nightly"
    assert document["workers"][0]["rss_mb"] == 450.0


def test_report_shows_what_waits_and_what_happened(settings, ledger, broker):
    ledger.lease("w1")
    ledger.ended("bad", "failed", error="boom")
    publish(settings, "default", 0, "m", 3.0)
    found = watch.report(settings)
    assert [one.id for one in found.waiting["default"]] == ["m"]
    assert found.between.failures[0].id == "bad"
    with pytest.raises(ValueError, match="ends before it begins"):
        watch.report(settings, since=found.between.until, until=found.between.since)


def test_watching_cannot_write(settings):
    with (
        stores.database(settings) as connection,
        pytest.raises(Exception, match="read-only transaction"),
    ):
        connection.execute("DELETE FROM ironbeat.flags")
