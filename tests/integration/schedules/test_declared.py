"""Declared schedules in a real PostgreSQL: imported again and again, beside an operator's edits."""

from __future__ import annotations

import threading

import psycopg
import pytest

from ironbeat.schedules import planner, store
from ironbeat.schedules.declared import bring_in
from ironbeat.schedules.definition import DefinitionError, from_input
from ironbeat.workload import ScheduleSpec

HOURLY = ScheduleSpec("hourly", "shop.sync", cron="0 * * * *", kwargs={"full": False})
OFTEN = ScheduleSpec("often", "shop.poll", every=30)


def load(connection, *specs: ScheduleSpec, workload: str = "shop", **options):
    return bring_in(connection, {workload: specs}, timezone="Asia/Taipei", **options)


def test_importing_again_changes_nothing(connection) -> None:
    first = load(connection, HOURLY, OFTEN)
    assert first.created == ["hourly", "often"]
    assert first
    planner.plan_new(connection)
    before = store.listing(connection)
    again = load(connection, HOURLY, OFTEN)
    assert again.unchanged == ["hourly", "often"]
    assert not again
    assert again.sentences() == []
    assert store.listing(connection) == before


def test_a_changed_declaration_is_followed(connection) -> None:
    load(connection, HOURLY, OFTEN)
    planner.plan_new(connection)
    changed = ScheduleSpec("hourly", "shop.sync", cron="30 * * * *", kwargs={"full": True})
    done = load(connection, changed, OFTEN)
    assert (done.updated, done.unchanged) == (["hourly"], ["often"])
    row = store.get(connection, "hourly")
    assert (row.definition.expression, row.definition.kwargs) == ("30 * * * *", {"full": True})
    assert row.edited_at is None
    assert row.next_fire_at is None, "beat has to plan it anew"
    assert store.get(connection, "often").next_fire_at is not None


def test_an_operators_edit_is_never_overwritten(connection) -> None:
    load(connection, HOURLY)
    store.edit(connection, "hourly", {"cron": "15 * * * *"})
    for spec in (HOURLY, ScheduleSpec("hourly", "shop.sync", cron="45 * * * *", queue="slow")):
        done = load(connection, spec)
        assert not done
        row = store.get(connection, "hourly")
        assert row.definition.expression == "15 * * * *"
        assert row.definition.queue is None
    assert done.kept["hourly"]["expression"] == ("15 * * * *", "45 * * * *")
    assert done.kept["hourly"]["queue"] == (None, "slow")
    assert "left as an operator edited it" in done.sentences()[0]
    assert row.differs_from_declared()["queue"] == (None, "slow")

    restored = store.restore(connection, "hourly")
    assert (restored.definition.expression, restored.definition.queue) == ("45 * * * *", "slow")
    assert restored.edited_at is None


def test_an_operators_pause_survives_imports_and_ends_without_a_trace(connection) -> None:
    load(connection, HOURLY)
    store.pause(connection, "hourly")
    done = load(connection, HOURLY)
    assert done.kept == {"hourly": {"enabled": (False, True)}}
    assert store.get(connection, "hourly").state == "paused"
    store.resume(connection, "hourly")
    # It is as declared again, so it follows its declaration again.
    assert load(connection, ScheduleSpec("hourly", "shop.sync", every="2h")).updated == ["hourly"]


def test_a_declaration_that_comes_to_agree_with_an_edit_takes_over(connection) -> None:
    load(connection, HOURLY)
    store.edit(connection, "hourly", {"cron": "15 * * * *"})
    agreeing = ScheduleSpec("hourly", "shop.sync", cron="15 * * * *", kwargs={"full": False})
    assert load(connection, agreeing).unchanged == ["hourly"]
    assert store.get(connection, "hourly").edited_at is None


def test_an_operators_own_schedule_is_not_taken_over(connection) -> None:
    own = from_input({"name": "hourly", "task": "mine", "every": "5m"}, timezone="UTC")
    store.add(connection, own)
    done = load(connection, HOURLY)
    assert done.kept["hourly"]["task"] == ("mine", "shop.sync")
    assert store.get(connection, "hourly").definition == own


def test_what_is_no_longer_declared_is_switched_off(connection) -> None:
    load(connection, HOURLY, OFTEN)
    done = load(connection, OFTEN)
    assert done.retired == ["hourly"]
    assert "no longer declared, switched off" in done.sentences()[0]
    assert store.get(connection, "hourly").state == "paused"
    assert not load(connection, OFTEN), "said once"
    assert load(connection, HOURLY, OFTEN).updated == ["hourly"]
    assert store.get(connection, "hourly").state == "active"
    load(connection, OFTEN)
    store.remove(connection, "hourly")


def test_an_edited_schedule_outlives_its_declaration(connection) -> None:
    load(connection, HOURLY)
    store.edit(connection, "hourly", {"cron": "15 * * * *"})
    done = load(connection)
    assert (done.retired, done.released) == ([], ["hourly"])
    row = store.get(connection, "hourly")
    assert (row.state, row.declared) == ("active", None)


def test_other_workloads_are_left_alone_unless_the_import_is_complete(connection) -> None:
    load(connection, HOURLY)
    store.add(connection, from_input({"name": "m", "task": "t", "every": 60}, timezone="UTC"))
    assert load(connection, OFTEN, workload="other", complete=False).created == ["often"]
    assert store.get(connection, "hourly").state == "active"
    assert load(connection, OFTEN, workload="other").retired == ["hourly"]
    assert store.get(connection, "m").state == "active"


def test_a_wrong_declaration_changes_nothing(connection) -> None:
    load(connection, HOURLY)
    wrong = ScheduleSpec("wrong", "shop.sync", cron="61 * * * *")
    with pytest.raises(DefinitionError, match="minute 61"):
        load(connection, OFTEN, wrong)
    with pytest.raises(DefinitionError, match="no task is named"):
        load(connection, OFTEN, tasks={"shop.sync": print})
    twice = {"shop": [OFTEN], "other": [OFTEN]}
    with pytest.raises(DefinitionError, match="declared by 'shop' and 'other'"):
        bring_in(connection, twice, timezone="UTC")
    assert [each.name for each in store.listing(connection)] == ["hourly"]
    assert store.get(connection, "hourly").state == "active"


def test_the_default_zone_holds_where_none_is_declared(connection) -> None:
    load(connection, HOURLY, ScheduleSpec("x", "t", every=5, timezone="Europe/Berlin"))
    zones = {each.name: each.definition.timezone for each in store.listing(connection)}
    assert zones == {"hourly": "Asia/Taipei", "x": "Europe/Berlin"}


def test_two_programs_may_import_at_once(connection, database_url) -> None:
    specs = [ScheduleSpec(f"s{number}", "t", every=60) for number in range(100)]
    done, failed = [], []

    def run() -> None:
        try:
            with psycopg.connect(database_url, autocommit=True) as own:
                done.append(load(own, *specs))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(len(each.created) for each in done) == [0, 0, 0, 100]
    assert len(store.listing(connection)) == 100
