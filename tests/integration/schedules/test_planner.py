"""A fire makes one run: the planner against a real PostgreSQL."""

from __future__ import annotations

import itertools
import threading
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from ironbeat import database
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import Outcome
from ironbeat.schedules import planner
from ironbeat.schedules.planner import backfill, fire_due, fire_now, plan_new
from ironbeat.schedules.store import ScheduleNotFound


def route(task: str) -> str:
    return "default"


@pytest.fixture
def connection(database_url: str):
    with database.dedicated(database_url) as opened:
        yield opened


def add(connection: psycopg.Connection[Any], name: str, every: str = "1s", **columns: Any) -> int:
    columns = {
        "name": name,
        "task": "t",
        "kind": "interval",
        "expression": every,
        "timezone": "UTC",
    } | columns
    names = ", ".join([*columns, "anchor_at"])
    values = ", ".join([f"%({name})s" for name in columns] + ["now() - interval '2 days'"])
    row = connection.execute(
        f"INSERT INTO ironbeat.schedules ({names}) VALUES ({values}) RETURNING id", columns
    ).fetchone()
    plan_new(connection)
    return row[0]


_moment = itertools.count(1)


def overdue(connection: psycopg.Connection[Any], seconds: float) -> None:
    """Let all schedules be late, each time by a little more: no slot comes twice."""
    connection.execute("ALTER TABLE ironbeat.schedules DISABLE TRIGGER schedule_changed")
    connection.execute(
        "UPDATE ironbeat.schedules SET anchor_at = anchor_at - %(s)s * interval '1 second',"
        " next_scheduled_for = next_scheduled_for - %(s)s * interval '1 second',"
        " next_fire_at = next_fire_at - %(s)s * interval '1 second'",
        {"s": seconds + next(_moment) / 1000},
    )
    connection.execute("ALTER TABLE ironbeat.schedules ENABLE TRIGGER schedule_changed")


def states(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute(
        "SELECT state FROM (SELECT state, created_at FROM ironbeat.runs UNION ALL"
        " SELECT state, created_at FROM ironbeat.run_history) r ORDER BY created_at"
    ).fetchall()
    return [row[0] for row in rows]


def test_a_due_schedule_makes_one_run_and_moves_on(connection) -> None:
    id = add(connection, "one", every="60s", args="[1]", kwargs='{"a": 2}', priority=3)
    overdue(connection, 60)
    fired = fire_due(connection, route)
    [(run_id, message)] = fired.publish
    assert message["headers"]["id"] == run_id
    assert message["body"][:2] == [[1], {"a": 2}]
    assert message["properties"]["priority"] == 3
    row = connection.execute(
        "SELECT next_fire_at - last_scheduled_for, next_fire_at > clock_timestamp(), id"
        " FROM ironbeat.schedules"
    ).fetchone()
    assert row == (timedelta(seconds=60), True, id)
    assert fire_due(connection, route).taken == 0
    run = Ledger._get(connection, run_id)
    assert (run.state, run.schedule_name, run.durable) == ("pending", "one", True)
    assert run.publish_at is not None


def test_many_planners_at_once_fire_each_slot_once(connection, database_url: str) -> None:
    for number in range(50):
        add(connection, f"s{number}", overlap="allow")
    published: list[str] = []
    lock = threading.Lock()

    def beat() -> None:
        with database.dedicated(database_url) as own:
            for _ in range(10):
                found = [id for id, _ in fire_due(own, route).publish]
                with lock:
                    published.extend(found)

    for _ in range(3):
        overdue(connection, 2)
        threads = [threading.Thread(target=beat) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(published) == len(set(published))
    fires, slots = connection.execute(
        "SELECT count(*), count(DISTINCT (schedule_id, scheduled_for)) FROM ironbeat.fires"
    ).fetchone()
    runs = connection.execute("SELECT count(*) FROM ironbeat.runs").fetchone()[0]
    assert fires == slots == runs == len(published)
    assert fires >= 50 * 3


def test_an_edit_made_while_the_plan_was_computed_wins(connection, database_url: str) -> None:
    add(connection, "edited", every="60s")
    overdue(connection, 60)
    rows_read = planner._plan

    def edit_then_plan(row: Any) -> Any:
        with database.dedicated(database_url) as operator:
            operator.execute("UPDATE ironbeat.schedules SET expression = '30s'")
        return rows_read(row)

    planner._plan = edit_then_plan
    try:
        assert fire_due(connection, route).publish == []
    finally:
        planner._plan = rows_read
    assert connection.execute("SELECT next_fire_at FROM ironbeat.schedules").fetchone() == (None,)
    assert plan_new(connection) == 1


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("skip", ["pending", "skipped", "skipped"]),
        ("allow", ["pending", "pending", "pending"]),
        ("queue_one", ["pending", "pending", "skipped"]),
        ("cancel_other", ["cancelled", "cancelled", "pending"]),
    ],
)
def test_overlap(connection, database_url: str, overlap: str, expected: list[str]) -> None:
    ledger = Ledger(database_url)
    add(connection, "s", every="60s", overlap=overlap)
    published = []
    for _ in range(3):
        overdue(connection, 60)
        fired = fire_due(connection, route)
        published += [id for id, _ in fired.publish]
        ledger.end(fired.cancel, "cancelled", "overlap")
    assert states(connection) == expected
    assert len(published) == {"skip": 1, "allow": 3, "queue_one": 1, "cancel_other": 3}[overlap]


def test_a_held_run_goes_when_the_one_before_it_ended(connection, database_url: str) -> None:
    ledger = Ledger(database_url)
    add(connection, "s", every="60s", overlap="queue_one")
    for _ in range(2):
        overdue(connection, 60)
        fire_due(connection, route)
    assert ledger.release_held() == 0
    first = connection.execute(
        "SELECT id FROM ironbeat.runs WHERE publish_at < 'infinity'"
    ).fetchone()[0]
    ledger.end([first], "cancelled", "test")
    assert ledger.release_held() == 1
    assert len(ledger.take_due(limit=10, hold=5)) == 1


def test_a_running_run_is_asked_to_stop(connection, database_url: str) -> None:
    add(connection, "s", every="60s", overlap="cancel_other")
    overdue(connection, 60)
    fire_due(connection, route)
    connection.execute("UPDATE ironbeat.runs SET state = 'running', lease_id = 'l', attempt = 1")
    overdue(connection, 60)
    fired = fire_due(connection, route)
    assert len(fired.stop) == 1
    assert Ledger(database_url).cancel_requests("l") == fired.stop


def test_missed_fires_are_one_skipped_run_with_its_reason(connection) -> None:
    add(connection, "s", every="1s", overlap="allow", catch_up="skip")
    overdue(connection, 86_400)
    fired = fire_due(connection, route)
    assert len(fired.publish) >= 1
    row = connection.execute(
        "SELECT reason FROM ironbeat.run_history WHERE state = 'skipped'"
    ).fetchone()
    assert "missed; catch-up is 'skip'" in row[0]
    assert "fires from" in row[0]


def test_by_hand_and_backfill(connection) -> None:
    add(connection, "s", every="60s", enabled=False)
    assert len(fire_now(connection, "s", route)) == 1
    now = connection.execute("SELECT now()").fetchone()[0]
    since, until = now - timedelta(minutes=10), now
    assert len(backfill(connection, "s", since, until, route)) == 10
    assert backfill(connection, "s", since, until, route) == []
    with pytest.raises(ValueError, match="in the future"):
        backfill(connection, "s", since, now + timedelta(hours=1), route)
    with pytest.raises(ValueError, match="more than 5 fires"):
        backfill(connection, "s", since, until, route, limit=5)
    with pytest.raises(ScheduleNotFound, match="no schedule is named 'nobody'"):
        fire_now(connection, "nobody", route)


def test_shares_are_a_courtesy(connection) -> None:
    id = add(connection, "s", every="60s")
    overdue(connection, 60)
    other = (id + 1) % 2
    assert fire_due(connection, route, place=other, beats=2, patience=3600).taken == 0
    assert fire_due(connection, route, place=other, beats=2, patience=0).taken == 1


def test_a_broken_row_harms_nobody_else(connection) -> None:
    add(connection, "good", every="60s")
    overdue(connection, 60)
    connection.execute(
        "INSERT INTO ironbeat.schedules (name, task, kind, expression, timezone)"
        " VALUES ('bad', 't', 'cron', 'every now and then', 'UTC')"
    )
    assert plan_new(connection) == 1
    assert plan_new(connection) == 0
    assert len(fire_due(connection, route).publish) == 1


def test_runs_of_a_slot_are_named_alike_everywhere(connection, database_url: str) -> None:
    id = add(connection, "s", every="60s")
    overdue(connection, 60)
    [(run, _)] = fire_due(connection, route).publish
    slot = connection.execute("SELECT scheduled_for FROM ironbeat.fires").fetchone()[0]
    assert planner.run_id(id, slot) == run
    ledger = Ledger(database_url)
    connection.execute("UPDATE ironbeat.runs SET state = 'running', attempt = 1")
    ledger.settle([Outcome(run, 1, "succeeded")])
    assert ledger.get(run).schedule_name == "s"
