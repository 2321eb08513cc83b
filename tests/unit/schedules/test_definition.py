"""What makes a schedule, and what is said about what does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from celery import Celery

from ironbeat.schedules.definition import (
    LARGEST_ARGUMENTS_BYTES,
    Definition,
    DefinitionError,
    from_input,
    from_json,
    from_spec,
)
from ironbeat.workload import ScheduleSpec

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
GOOD = {"name": "nightly", "task": "app.clean", "cron": "30 3 * * *"}


def made(**values) -> Definition:
    return from_input(GOOD | values, timezone="Asia/Taipei")


def refused(**values) -> dict[str, str]:
    with pytest.raises(DefinitionError) as caught:
        made(**values)
    return caught.value.problems


def test_a_declared_schedule() -> None:
    spec = ScheduleSpec(
        "every-half-minute",
        "app.celery_tasks.clean",
        every=30,
        args=(1, "two"),
        kwargs={"deep": ({"x": None},)},
        queue="fast",
        priority=3,
        starts_at="2026-05-01T09:30",
        ends_at="2026-06-01T00:00Z",
        jitter=5,
        expires=60,
        catch_up="window",
        catch_up_window=3600,
        overlap="allow",
    )
    found = from_spec(spec, workload="marketplace", timezone="Asia/Taipei")
    assert found == Definition(
        name="every-half-minute",
        task="app.celery_tasks.clean",
        kind="interval",
        expression="30s",
        timezone="Asia/Taipei",
        workload="marketplace",
        args=[1, "two"],
        kwargs={"deep": [{"x": None}]},
        queue="fast",
        priority=3,
        starts_at=datetime(2026, 5, 1, 1, 30, tzinfo=UTC),
        ends_at=datetime(2026, 6, 1, tzinfo=UTC),
        jitter_seconds=5,
        expires_seconds=60,
        catch_up="window",
        catch_up_window_seconds=3600,
        overlap="allow",
    )
    assert from_json(found.as_json()) == found


@pytest.mark.parametrize(
    ("every", "expression"),
    [
        (30, "30s"),
        (0.5 + 1, "1.5s"),
        (1_209_600, "1209600s"),
        (1_234_567.0, "1234567s"),
        (timedelta(hours=1), "3600s"),
    ],
)
def test_declared_seconds_are_exact(every: float | timedelta, expression: str) -> None:
    found = from_spec(ScheduleSpec("x", "t", every=every), timezone="UTC")
    assert (found.kind, found.expression) == ("interval", expression)


def test_what_a_person_types() -> None:
    found = from_input(
        {
            "name": "x",
            "task": "t",
            "every": "1h30m",
            "timezone": "Europe/Berlin",
            "args": "[1, 2]",
            "kwargs": '{"a": true}',
            "priority": "7",
            "starts_at": "2026-05-01T09:30",
            "jitter": "2m",
            "expires": "1h",
            "catch_up_window": "2h",
            "catch_up": "window",
            "enabled": "off",
            "queue": "",
        },
        timezone="Asia/Taipei",
    )
    assert (found.kind, found.expression, found.timezone) == ("interval", "1h30m", "Europe/Berlin")
    assert (found.args, found.kwargs, found.priority, found.queue) == ([1, 2], {"a": True}, 7, None)
    assert found.starts_at == datetime(2026, 5, 1, 7, 30, tzinfo=UTC)
    assert (found.jitter_seconds, found.expires_seconds) == (120, 3600)
    assert found.catch_up_window_seconds == 7200
    assert found.enabled is False


def test_the_default_zone_is_taken() -> None:
    assert made().timezone == "Asia/Taipei"
    assert made(timezone=None).timezone == "Asia/Taipei"


@pytest.mark.parametrize(
    ("values", "field", "told"),
    [
        ({"cron": "61 * * * *"}, "expression", "minute 61 is out of range"),
        ({"timezone": "Mars/Olympus"}, "timezone", "unknown time zone"),
        ({"every": "5m"}, "expression", "exactly one"),
        ({"name": ""}, "name", "missing"),
        ({"name": "x" * 201}, "name", "at most 200"),
        ({"name": "a\nb"}, "name", "unprintable"),
        ({"task": None}, "task", "missing"),
        ({"args": "[1,"}, "args", "is not JSON"),
        ({"args": {"a": 1}}, "args", "not a list"),
        ({"args": "text"}, "args", "is not JSON"),
        ({"kwargs": [1]}, "kwargs", "not an object"),
        ({"kwargs": {1: 2}}, "kwargs", "text keys"),
        ({"args": [{1, 2}]}, "args", "type set"),
        ({"args": [NOON]}, "args", "type datetime"),
        ({"args": [float("nan")]}, "args", "not a number in JSON"),
        ({"args": ["a\0b"]}, "args", "NUL"),
        ({"args": ["\ud800"]}, "args", "character pair"),
        ({"args": [10**2000]}, "args", "1000 digits"),
        ({"args": ["x" * LARGEST_ARGUMENTS_BYTES]}, "args", "too large"),
        ({"headers": "[]"}, "headers", "not an object"),
        ({"priority": 10}, "priority", "from 0 to 9"),
        ({"priority": "high"}, "priority", "not a whole number"),
        ({"priority": True}, "priority", "from 0 to 9"),
        ({"jitter": "-5s"}, "jitter", "negative"),
        ({"jitter": 100_000}, "jitter_seconds", "from 0 to 86400"),
        ({"jitter": "1500ms"}, "jitter", "whole seconds"),
        ({"expires": 0}, "expires_seconds", "from 1"),
        ({"catch_up": "some"}, "catch_up", "all, latest, skip, window"),
        ({"catch_up_max": 0}, "catch_up_max", "from 1"),
        ({"catch_up": "window"}, "catch_up_window_seconds", "missing"),
        ({"overlap": "maybe"}, "overlap", "allow, cancel_other, queue_one, skip"),
        ({"enabled": "perhaps"}, "enabled", "neither true nor false"),
        ({"starts_at": "yesterday"}, "starts_at", "ISO 8601"),
        ({"starts_at": NOON, "ends_at": NOON}, "ends_at", "not after the start"),
        ({"starts_at": NOON, "ends_at": NOON + timedelta(minutes=5)}, "expression", "between"),
        ({"queue": 5}, "queue", "no name"),
        ({"quueue": "x"}, "quueue", "did you mean 'queue'"),
    ],
)
def test_what_is_wrong_is_told_with_the_field(values: dict, field: str, told: str) -> None:
    if "every" in values:
        with pytest.raises(DefinitionError) as caught:
            from_spec(ScheduleSpec("x", "t", cron="* * * * *", every=5), timezone="UTC")
        problems = caught.value.problems
    else:
        problems = refused(**values)
    assert told in problems[field]


def test_everything_wrong_is_told_at_once() -> None:
    problems = refused(cron="x", priority=11, overlap="maybe", kwargs=5)
    assert problems.keys() == {"expression", "priority", "overlap", "kwargs"}


def test_no_time_at_all_is_told() -> None:
    with pytest.raises(DefinitionError, match="give one of cron, every, solar, once"):
        from_input({"name": "x", "task": "t"}, timezone="UTC")
    with pytest.raises(DefinitionError, match="only one of"):
        from_input({"name": "x", "task": "t", "cron": "* * * * *", "every": "5m"}, timezone="UTC")


def test_once_outside_its_bounds_is_refused() -> None:
    values = {"cron": None, "once": "2026-05-01T12:00Z", "ends_at": "2026-04-01T00:00Z"}
    assert "between its start and its end" in refused(**values)["expression"]


def test_deep_arguments_are_refused_not_crashed_on() -> None:
    deep: list = []
    for _ in range(50_000):
        deep = [deep]
    assert "levels deep" in refused(args=deep)["args"]


def test_arguments_are_nobody_elses() -> None:
    kwargs = {"list": [1]}
    definition = made(kwargs=kwargs)
    kwargs["list"].append(2)
    assert definition.kwargs == {"list": [1]}


def test_a_change_is_checked_as_a_whole() -> None:
    definition = made(queue="slow")
    changed = definition.changed({"cron": "0 4 * * *", "queue": None, "jitter": "30s"})
    assert changed.differences(definition) == {
        "expression": ("0 4 * * *", "30 3 * * *"),
        "queue": (None, "slow"),
        "jitter_seconds": (30, 0),
    }
    with pytest.raises(DefinitionError, match="not after the start"):
        definition.changed({"starts_at": NOON}).changed({"ends_at": NOON - timedelta(days=1)})
    with pytest.raises(DefinitionError, match="keeps its name"):
        definition.changed({"name": "other"})
    with pytest.raises(DefinitionError, match="did you mean"):
        definition.changed({"expresion": "* * * * *"})


def test_a_start_is_read_in_the_zone_that_is_set_with_it() -> None:
    changed = made().changed({"timezone": "Europe/Berlin", "starts_at": "2026-05-01T12:00"})
    assert changed.starts_at == datetime(2026, 5, 1, 10, tzinfo=UTC)


def test_times_with_other_offsets_are_the_same_times() -> None:
    moment = NOON.astimezone(timezone(timedelta(hours=8)))
    assert made(starts_at=moment) == made(starts_at=NOON)


def test_upcoming_fires() -> None:
    definition = made(ends_at="2026-05-03T12:00")
    fires = definition.upcoming(5, now=NOON, anchor=NOON)
    assert [fire.scheduled_for for fire in fires] == [
        datetime(2026, 5, 1, 19, 30, tzinfo=UTC),
        datetime(2026, 5, 2, 19, 30, tzinfo=UTC),
    ]


def test_a_row_may_be_wrong_and_says_so() -> None:
    wrong = Definition.of_row(made().as_json() | {"expression": "x", "priority": 77})
    assert wrong.problems().keys() == {"expression", "priority"}
    assert "has 1 field;" in wrong.describe()
    with pytest.raises(DefinitionError):
        wrong.checked()


# -- tasks and queues ------------------------------------------------------------------------------

app = Celery("test", set_as_current=False)


@app.task(name="app.clean")
def clean(days: int = 30) -> None: ...


@app.task(name="app.move", bind=True, autoretry_for=(ValueError,))
def move(self, source: str, *, target: str) -> None: ...


def test_tasks_that_exist_and_take_the_arguments_pass() -> None:
    made(kwargs={"days": 3}).check_task(app.tasks)
    made(args=[3]).check_task({"app.clean": lambda days: None})
    made(task="app.move", args=["a"], kwargs={"target": "b"}).check_task(app.tasks)
    made(task="unknown").check_task(None)


@pytest.mark.parametrize(
    ("values", "field", "told"),
    [
        ({"task": "app.claen"}, "task", "did you mean 'app.clean'"),
        ({"task": "zzz"}, "task", "known are"),
        ({"kwargs": {"weeks": 1}}, "args", "unexpected keyword argument 'weeks'"),
        ({"args": [1, 2]}, "args", "too many positional"),
        ({"task": "app.move", "args": ["a"]}, "args", "'target'"),
        ({"task": "app.move", "kwargs": {"self": 1, "target": "b"}}, "args", "'source'"),
    ],
)
def test_unknown_tasks_and_arguments_that_do_not_fit(values: dict, field: str, told: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        made(**values).check_task(app.tasks)
    assert told in caught.value.problems[field]


def test_an_unknown_queue() -> None:
    made(queue="fast").check_task(None, {"fast", "slow"})
    made().check_task(None, {"fast"})
    with pytest.raises(DefinitionError, match="did you mean 'fast'"):
        made(queue="fsat").check_task(None, {"fast", "slow"})
