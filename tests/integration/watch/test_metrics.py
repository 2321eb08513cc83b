"""What `/metrics` says, from real rows and messages, in Prometheus' own words."""

from __future__ import annotations

import json
import threading
import time

import psycopg
import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ironbeat.embedded import temporary_postgres
from ironbeat.migrations import upgrade
from ironbeat.runs.leases import Holder, Lease
from ironbeat.runs.model import ENDED_STATES
from ironbeat.watch import totals
from ironbeat.watch.catalogue import describe_metrics
from ironbeat.watch.exposition import Exposition
from ironbeat.watch.totals import FLAG, read_totals


def scrape(exposition):
    registry = CollectorRegistry()
    registry.register(exposition)
    text = generate_latest(registry).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.values()))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def later(ledger, seconds):
    """Let time pass for the counts: everything stored moves into the past."""
    for table, columns in (
        ("run_history", ("created_at", "started_at", "ended_at")),
        ("fires", ("scheduled_for", "fired_at")),
    ):
        changes = ", ".join(f"{c} = {c} - make_interval(secs => %(seconds)s)" for c in columns)
        ledger.connection.execute(f"UPDATE ironbeat.{table} SET {changes}", {"seconds": seconds})
    ledger.connection.execute(
        """UPDATE ironbeat.flags SET value = value || jsonb_build_object(
               'upto', (value ->> 'upto')::timestamptz - make_interval(secs => %s),
               'seen_at', (value ->> 'seen_at')::timestamptz - make_interval(secs => %s))
           WHERE name = %s""",
        (seconds, seconds, FLAG),
    )


def test_every_figure_is_there(settings, ledger):
    client = redis.Redis.from_url(settings.broker_url.get_secret_value())
    client.lpush("default", json.dumps({"headers": {"id": "1", "task": "t"}}))
    client.lpush("default\x06\x169", "x", "y")
    client.zadd("unacked_index", {"a": 1})
    client.close()
    ledger.lease("w1", queues=("default",), info={"rss_mb": 100, "cpu_pct": 5, "consumed": 9})
    ledger.lease("b1", kind="beat", ticked=2.0)
    ledger.schedule("late", due_in=-90)
    ledger.live("due", publish_at=30.0, queue="default")
    ledger.live("busy", "running", started_at=50.0, lease_id="w1")

    found = scrape(Exposition(settings))

    assert found["ironbeat_up", "database"] == 1 and found["ironbeat_up", "redis"] == 1
    assert found["ironbeat_queue_length", "0", "default"] == 1
    assert found["ironbeat_queue_length", "9", "default"] == 2
    assert found["ironbeat_unacked_messages",] == 1
    assert found["ironbeat_workers",] == 1 and found["ironbeat_beats",] == 1
    assert found["ironbeat_worker_memory_bytes", "w1@here"] == 100 * 2**20
    assert found["ironbeat_worker_consumed_total", "w1@here"] == 9
    assert found["ironbeat_queue_consumers", "default"] == 1
    assert found["ironbeat_beat_tick_age_seconds",] == pytest.approx(2, abs=1)
    assert found["ironbeat_outbox_runs",] == 1
    assert found["ironbeat_outbox_age_seconds",] == pytest.approx(30, abs=2)
    assert found["ironbeat_live_runs", "default", "running"] == 1
    assert found["ironbeat_longest_running_seconds",] == pytest.approx(50, abs=2)
    assert found["ironbeat_schedules_overdue",] == 1 and found["ironbeat_schedules_missed",] == 1
    assert found["ironbeat_schedule_overdue_seconds", "late"] == pytest.approx(90, abs=2)
    assert found["ironbeat_worker_memory_limit_bytes",] == settings.worker_max_memory_mb * 2**20
    assert found["ironbeat_workers_drawing",] == 0
    assert ("ironbeat_heartbeat_age_seconds",) not in found
    assert found["ironbeat_broker_noeviction",] == 1
    assert found["ironbeat_fires_total",] == 0


def test_every_metric_of_the_catalogue_is_exposed_and_no_other(settings, ledger):
    ledger.lease("w1", queues=("default",), info={"rss_mb": 100, "cpu_pct": 5, "consumed": 9})
    beat = {"beat": {"heartbeat_at": "2026-01-01T00:00:00+00:00"}}
    ledger.lease("b1", kind="beat", info=beat | {"rss_mb": 1})
    exposed = {family.name for family in Exposition(settings).collect()}
    described = {each.name for each in describe_metrics() if "_http_" not in each.name}
    assert exposed == described


def test_who_fell_silent_and_whose_work_was_taken_over(settings, ledger):
    ledger.lease("w1", info={"source": "ledger"})
    ledger.lease("w2", lapsed=45, renewed=50)
    ledger.lease("b1", kind="beat", lapsed=45, renewed=50)
    found = scrape(Exposition(settings))
    assert found["ironbeat_workers",] == 1 and found["ironbeat_workers_drawing",] == 1
    assert found["ironbeat_worker_silent_seconds", "w2@here"] == pytest.approx(50, abs=2)
    assert found["ironbeat_lapsed_leases", "worker"] == 1
    assert found["ironbeat_lapsed_leases", "beat"] == 1
    assert found["ironbeat_leases_lost_total", "worker"] == 0

    heir = Lease("worker", "w3@here", url=settings.database_url.get_secret_value())
    heir._inherit(ledger.connection, Holder("w2", "worker", "w2@here", "here", 4711))
    found = scrape(Exposition(settings))
    assert found["ironbeat_lapsed_leases", "worker"] == 0
    assert found["ironbeat_leases_lost_total", "worker"] == 1
    assert found["ironbeat_leases_lost_total", "beat"] == 0
    assert ("ironbeat_worker_silent_seconds", "w2@here") not in found


def test_every_outcome_is_counted_from_the_beginning(settings, ledger):
    first = scrape(Exposition(settings))
    for state in ENDED_STATES:
        assert first["ironbeat_outcomes_total", state] == 0
    ledger.ended("a", "failed", ago=0, took=0.2)
    ledger.ended("b", "failed", ago=0, took=0.2, task="u")
    later(ledger, 15)
    found = scrape(Exposition(settings))
    assert found["ironbeat_outcomes_total", "failed"] == 2
    assert found["ironbeat_outcomes_total", "succeeded"] == 0


def test_runs_and_fires_are_counted_once_and_for_ever(ledger):
    read_totals(ledger.connection)
    schedule = ledger.schedule("s", jitter_seconds=10)
    ledger.ended("a", ago=0, took=0.2, waited=0.07)
    ledger.ended("b", ago=0, took=40, waited=2000, attempt=2, retries=1)
    ledger.ended("c", "failed", ago=0, took=0.2, task="u")
    ledger.fire(schedule, ago=0, late=10.3)
    later(ledger, 15)

    first = read_totals(ledger.connection)

    good = first.runs["t", "default", "succeeded"]
    assert good.number == 2
    # Bounds 0.01 0.05 0.1 0.5 1 5 10 30 60 …: 0.2 s is under 0.5, 40 s under 60.
    assert good.run.counts == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert good.run.sum == pytest.approx(40.2)
    assert good.wait.counts[-1] == 1 and good.wait.sum == pytest.approx(0.07, abs=0.001)
    assert first.runs["u", "default", "failed"].number == 1
    assert first.fires.counts[-1] == 1 and first.fires.sum == pytest.approx(0.3, abs=0.01)

    assert read_totals(ledger.connection).runs == first.runs
    ledger.connection.execute("DELETE FROM ironbeat.run_history")
    later(ledger, 15)
    assert read_totals(ledger.connection).runs == first.runs


def test_what_ended_before_the_first_question_is_not_counted(ledger):
    ledger.ended("old", ago=3600)
    assert read_totals(ledger.connection).runs == {}


def test_after_a_gap_late_outcomes_are_waited_for_once(ledger):
    read_totals(ledger.connection)
    ledger.ended("in-time", ago=0)
    later(ledger, 60)
    assert read_totals(ledger.connection).runs == {}
    # A worker that was cut off writes only now how a run ended half a minute ago.
    ledger.ended("late", ago=30)
    assert read_totals(ledger.connection).runs["t", "default", "succeeded"].number == 2
    ledger.ended("next", ago=0)
    later(ledger, 60)
    read_totals(ledger.connection)
    later(ledger, 60)
    assert read_totals(ledger.connection).runs["t", "default", "succeeded"].number == 3


def test_a_long_backlog_is_counted_in_rounds(ledger, monkeypatch):
    monkeypatch.setattr(totals, "ROUND", 10)
    read_totals(ledger.connection)
    for number in range(25):
        ledger.ended(f"r{number}", ago=0.001 * number)
    later(ledger, 15)
    numbers = []
    for _ in range(4):
        numbers.append(read_totals(ledger.connection).runs["t", "default", "succeeded"].number)
    assert numbers == [11, 22, 25, 25]


def test_many_ask_at_once_and_nothing_is_counted_twice(ledger, database_url):
    read_totals(ledger.connection)
    for number in range(50):
        ledger.ended(f"r{number}", ago=0)
    later(ledger, 15)

    def ask():
        with psycopg.connect(database_url, autocommit=True) as connection:
            for _ in range(5):
                read_totals(connection)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_totals(ledger.connection).runs["t", "default", "succeeded"].number == 50


def test_made_up_task_names_do_not_fill_the_monitoring(ledger, monkeypatch):
    monkeypatch.setattr(totals, "MOST_SERIES", 3)
    read_totals(ledger.connection)
    for number in range(6):
        ledger.ended(f"r{number}", ago=0, task=f"task-{number}")
    later(ledger, 15)
    found = read_totals(ledger.connection).runs
    assert len(found) == 4 and found["(other)", "default", "succeeded"].number == 3


def test_a_hanging_server_leaves_its_figures_out(monkeypatch, settings):
    with temporary_postgres() as server:
        upgrade(server.url, ())
        hanging = settings.model_copy(
            update={"database_url": type(settings.database_url)(server.url)}
        )
        exposition = Exposition(hanging, deadline=0.5)
        assert scrape(exposition)["ironbeat_up", "database"] == 1
        server.pause()
        started = time.monotonic()
        found = scrape(exposition)
        assert time.monotonic() - started < 1.5
        server.resume()
    assert found["ironbeat_up", "database"] == 0 and found["ironbeat_up", "redis"] == 1
    assert ("ironbeat_workers",) not in found
    assert ("ironbeat_queue_length", "0", "default") in found
