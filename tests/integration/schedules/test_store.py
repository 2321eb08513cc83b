"""Schedules in a real PostgreSQL: written, edited, listed, and planned anew by beat's planner."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from ironbeat.database import CHANNEL_SCHEDULES
from ironbeat.schedules import planner, store
from ironbeat.schedules.definition import DefinitionError, from_input, from_spec
from ironbeat.schedules.store import ScheduleDeclared, ScheduleExists, ScheduleNotFound
from ironbeat.workload import ScheduleSpec

SECOND = timedelta(seconds=1)


def definition(name: str = "nightly", **values):
    return from_input({"name": name, "task": "app.clean"} | values, timezone="Asia/Taipei")


def hourly(name: str = "hourly", **values):
    return definition(name, cron="0 * * * *", **values)


def test_what_is_added_is_read_back(connection) -> None:
    asked = definition(
        every="90s",
        args=[1, "二"],
        kwargs={"a": {"b": None}},
        headers={"x-tenant": "acme"},
        queue="fast",
        priority=3,
        starts_at="2026-05-01T09:30",
        ends_at="2030-05-01T09:30",
        jitter="5s",
        expires="1m",
        catch_up="window",
        catch_up_window="1h",
        overlap="queue_one",
        enabled=False,
    )
    made = store.add(connection, asked)
    assert made.definition == asked
    assert store.get(connection, "nightly") == made
    assert made.declared is None
    assert made.edited_at is not None
    assert made.state == "paused"


def test_a_name_is_taken_once(connection) -> None:
    store.add(connection, hourly())
    with pytest.raises(ScheduleExists, match="schedule edit hourly"):
        store.add(connection, hourly(task="other"))
    assert store.get(connection, "hourly").definition.task == "app.clean"


def test_an_unknown_task_changes_nothing(connection) -> None:
    with pytest.raises(DefinitionError, match="no task is named"):
        store.add(connection, hourly(), tasks={"other": print})
    assert store.listing(connection) == []
    store.add(connection, hourly())
    with pytest.raises(DefinitionError, match="no task is named"):
        store.edit(connection, "hourly", {"task": "app.claen"}, tasks={"app.clean": print})
    with pytest.raises(DefinitionError, match="out of range"):
        store.edit(connection, "hourly", {"cron": "99 * * * *", "priority": 3})
    assert store.get(connection, "hourly").definition == hourly()


@pytest.mark.parametrize("act", [store.get, store.pause, store.resume, store.remove, store.restore])
def test_an_unknown_name_is_told(connection, act) -> None:
    with pytest.raises(ScheduleNotFound, match="schedule list"):
        act(connection, "nobody")
    with pytest.raises(ScheduleNotFound):
        store.edit(connection, "nobody", {"priority": 1})
    with pytest.raises(ScheduleNotFound):
        store.preview(connection, "nobody", 3)


def test_removing(connection) -> None:
    store.add(connection, hourly())
    store.remove(connection, "hourly")
    assert store.listing(connection) == []


def test_what_code_declares_cannot_be_removed(connection) -> None:
    spec = from_spec(ScheduleSpec("x", "t", every=30), workload="shop", timezone="UTC")
    store.insert(connection, spec, declared=spec.as_json())
    with pytest.raises(ScheduleDeclared, match="pause it"):
        store.remove(connection, "x")
    assert store.get(connection, "x").state == "active"


def test_listing_by_filters(connection) -> None:
    store.add(connection, hourly("b-hourly", queue="fast"))
    store.add(connection, definition("A-half", every="30m", task="app.move", enabled=False))
    store.add(connection, definition("c-once", once="2099-01-01T00:00", workload="shop"))

    def names(**filters):
        return [each.name for each in store.listing(connection, **filters)]

    assert sorted(names()) == ["A-half", "b-hourly", "c-once"]
    assert names(matching="HOUR") == ["b-hourly"]
    assert names(matching="%") == []
    assert names(task="app.move") == ["A-half"]
    assert names(kind="once") == ["c-once"]
    assert names(queue="fast") == ["b-hourly"]
    assert names(workload="shop") == ["c-once"]
    assert names(enabled=False) == ["A-half"]
    assert names(kind="cron", enabled=False) == []
    planner.plan_new(connection)
    assert names(by_next_fire=True)[0] == "b-hourly"
    assert names(by_next_fire=True, limit=1, offset=1) == ["c-once"]


# -- what beat makes of an edit --------------------------------------------------------------------


def planned(connection, name: str) -> store.Schedule:
    planner.plan_new(connection)
    return store.get(connection, name)


def test_a_new_schedule_is_planned_from_now_on(connection) -> None:
    store.add(connection, hourly())
    row = planned(connection, "hourly")
    assert row.next_fire_at == row.next_scheduled_for
    assert timedelta(0) < row.next_fire_at - datetime.now(UTC) <= timedelta(hours=1)


def test_an_interval_counts_from_its_start(connection) -> None:
    start = datetime(2020, 1, 1, 0, 0, 3, tzinfo=UTC)
    store.add(connection, definition("a", every="1h", starts_at=start))
    row = planned(connection, "a")
    assert (row.next_fire_at - start) % timedelta(hours=1) == timedelta(0)
    store.edit(connection, "a", {"starts_at": start + 7 * SECOND})
    row = planned(connection, "a")
    assert (row.next_fire_at - start) % timedelta(hours=1) == 7 * SECOND
    store.edit(connection, "a", {"starts_at": None})
    assert planned(connection, "a").anchor_at == start + 7 * SECOND


def test_an_interval_without_a_start_counts_from_a_whole_second(connection) -> None:
    row = store.add(connection, definition("a", every="30s"))
    assert row.anchor_at.microsecond == 0
    assert abs(row.anchor_at - datetime.now(UTC)) < 30 * SECOND


@pytest.mark.parametrize(
    ("changes", "anew"),
    [
        ({"cron": "5 * * * *"}, True),
        ({"every": "10m"}, True),
        ({"timezone": "Asia/Kathmandu"}, True),
        ({"jitter": "10m"}, True),
        ({"ends_at": "2099-01-01T00:00"}, True),
        ({"starts_at": "2098-01-01T00:00"}, True),
        ({"task": "other"}, False),
        ({"kwargs": {"a": 1}}, False),
        ({"queue": "fast", "priority": 1, "headers": {"a": 1}}, False),
        ({"catch_up": "all", "overlap": "allow", "expires": "1h"}, False),
    ],
)
def test_what_decides_the_time_is_planned_anew_and_nothing_else(connection, changes, anew) -> None:
    store.add(connection, hourly())
    before = planned(connection, "hourly")
    edited = store.edit(connection, "hourly", changes)
    assert (edited.next_fire_at is None) is anew
    assert edited.updated_at > before.updated_at
    assert planned(connection, "hourly").next_fire_at is not None


def test_an_edit_that_changes_nothing_leaves_the_plan(connection) -> None:
    store.add(connection, hourly())
    before = planned(connection, "hourly")
    assert store.edit(connection, "hourly", {"cron": "0 * * * *", "priority": ""}) == before


def test_a_long_pause_is_not_caught_up(connection) -> None:
    store.add(connection, definition("often", every="1s", catch_up="all", catch_up_max=1000))
    planned(connection, "often")
    paused = store.pause(connection, "often")
    assert (paused.state, paused.next_fire_at) == ("paused", None)
    # As if it had been paused for a day, with the next fire of that time still in place.
    connection.execute(
        "UPDATE ironbeat.schedules SET anchor_at = anchor_at - interval '1 day', "
        "last_scheduled_for = now() - interval '1 day'"
    )
    assert planner.plan_new(connection) == 0
    assert planner.fire_due(connection, lambda task: "default").taken == 0
    store.resume(connection, "often")
    assert planned(connection, "often").next_fire_at > datetime.now(UTC)
    fired = planner.fire_due(connection, lambda task: "default")
    assert len(fired.publish) <= 1


def test_a_pause_while_a_fire_was_due_does_not_fire_it_later(connection) -> None:
    store.add(connection, definition("often", every="1s", catch_up="all"))
    planned(connection, "often")
    connection.execute(
        "UPDATE ironbeat.schedules SET next_fire_at = now() - interval '1 hour', "
        "next_scheduled_for = date_trunc('second', now()) - interval '1 hour'"
    )
    store.pause(connection, "often")
    store.resume(connection, "often")
    assert planner.fire_due(connection, lambda task: "default").taken == 0


def test_beat_does_not_undo_an_edit_it_has_not_seen(connection, database_url) -> None:
    """The planner reads, an operator edits, the planner writes: the edit holds."""
    store.add(connection, hourly())
    planned(connection, "hourly")
    connection.execute(
        "UPDATE ironbeat.schedules SET next_fire_at = date_trunc('hour', now()), "
        "next_scheduled_for = date_trunc('hour', now())"
    )
    edited = threading.Event()

    class EditingMeanwhile(psycopg.Connection):
        def execute(self, query, *args, **kwargs):
            if not edited.is_set():
                edited.set()
                store.edit(connection, "hourly", {"cron": "5 5 5 5 *"})
            return super().execute(query, *args, **kwargs)

    with EditingMeanwhile.connect(database_url, autocommit=True) as beat:
        fired = planner.fire_due(beat, lambda task: "default")
    assert edited.is_set()
    assert fired.taken == 1
    assert fired.publish == []
    assert store.get(connection, "hourly").next_fire_at is None
    assert planned(connection, "hourly").definition.expression == "5 5 5 5 *"


def test_every_edit_wakes_beat(connection, database_url) -> None:
    store.add(connection, hourly())
    with psycopg.connect(database_url, autocommit=True) as beat:
        beat.execute(f"LISTEN {CHANNEL_SCHEDULES}")
        for act in (
            lambda: store.edit(connection, "hourly", {"cron": "5 * * * *"}),
            lambda: store.pause(connection, "hourly"),
            lambda: store.resume(connection, "hourly"),
            lambda: store.add(connection, hourly("another")),
            lambda: store.remove(connection, "another"),
        ):
            act()
            assert len(list(beat.notifies(timeout=2, stop_after=1))) == 1
        planner.plan_new(connection)
        planner.fire_due(connection, lambda task: "default")
        assert list(beat.notifies(timeout=0.3)) == []


def test_headers_go_out_with_the_message(connection) -> None:
    store.add(connection, hourly(headers={"x-tenant": "acme", "task": "forged"}))
    ((_, message),) = planner.fire_now(connection, "hourly", lambda task: "default")
    assert message["headers"]["x-tenant"] == "acme"
    assert message["headers"]["task"] == "app.clean"


# -- preview ---------------------------------------------------------------------------------------


def test_preview_is_what_beat_will_do(connection) -> None:
    store.add(connection, hourly(jitter="10m"))
    row = planned(connection, "hourly")
    fires = store.preview(connection, "hourly", 5)
    assert len(fires) == 5
    assert (fires[0].scheduled_for, fires[0].due_at) == (row.next_scheduled_for, row.next_fire_at)
    assert all(
        timedelta(0) <= fire.due_at - fire.scheduled_for <= timedelta(minutes=10) for fire in fires
    )


def test_preview_before_beat_has_planned_and_while_paused(connection) -> None:
    store.add(connection, hourly())
    expected = store.preview(connection, "hourly", 3)
    assert len(expected) == 3
    planned(connection, "hourly")
    assert store.preview(connection, "hourly", 3) == expected
    store.pause(connection, "hourly")
    assert store.preview(connection, "hourly", 3) == expected


def test_a_schedule_that_is_over(connection) -> None:
    store.add(connection, hourly(ends_at=datetime.now(UTC) - timedelta(days=1)))
    row = planned(connection, "hourly")
    assert (row.state, row.next_fire_at) == ("finished", None)
    assert store.preview(connection, "hourly", 3) == []
    store.edit(connection, "hourly", {"ends_at": None})
    assert planned(connection, "hourly").state == "active"


def test_a_row_that_somebody_wrote_by_hand(connection) -> None:
    """A wrong row is shown as such; the others are planned and listed."""
    store.add(connection, hourly())
    connection.execute(
        "INSERT INTO ironbeat.schedules (name, task, kind, expression, timezone) "
        "VALUES ('by hand', 't', 'cron', 'whenever', 'UTC')"
    )
    assert planned(connection, "by hand").state == "invalid"
    assert {each.name: each.state for each in store.listing(connection)} == {
        "by hand": "invalid",
        "hourly": "active",
    }
    with pytest.raises(DefinitionError, match="1 field;"):
        store.preview(connection, "by hand", 1)
    with pytest.raises(DefinitionError, match="1 field;"):
        store.edit(connection, "by hand", {"priority": 3})
    assert store.pause(connection, "by hand").state == "paused"
    mended = store.edit(connection, "by hand", {"cron": "0 * * * *", "enabled": True})
    assert mended.state == "active"
    assert planned(connection, "by hand").next_fire_at is not None
