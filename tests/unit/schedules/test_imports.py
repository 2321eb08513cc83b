"""Celery's beat_schedule translated: the same tasks at the same times."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta, timezone

import pytest
from celery import Celery
from celery.schedules import BaseSchedule, crontab, schedule, solar
from kombu import Queue

from ironbeat.schedules.cadence import parse
from ironbeat.schedules.imports import crontab_expression, from_beat_schedule
from ironbeat.workload import ScheduleSpec

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
TASK = {"task": "shop.sync"}


def translated(entry: dict) -> tuple[ScheduleSpec, list[str]]:
    found = from_beat_schedule({"x": TASK | entry}, timezone="Asia/Taipei")
    assert found.refused == {}
    (spec,) = found.specs
    return spec, found.notes.get("x", [])


def refused(entry) -> str:
    found = from_beat_schedule({"x": entry}, timezone="Asia/Taipei")
    assert found.specs == []
    return found.refused["x"]


def sun(event: str, latitude: float, longitude: float) -> solar:
    """A solar schedule as Celery makes it, without the library that computes it there."""
    made = solar.__new__(solar)
    made.event, made.lat, made.lon = event, latitude, longitude
    return made


class Weekly(BaseSchedule):
    """A schedule class of a user's own."""


@pytest.mark.parametrize(
    ("given", "kind", "expression"),
    [
        (30, "interval", "30s"),
        (1.5, "interval", "1.5s"),
        (timedelta(days=14), "interval", "1209600s"),
        (schedule(timedelta(minutes=5)), "interval", "300s"),
        (schedule(90), "interval", "90s"),
        (crontab(), "cron", "* * * * *"),
        (crontab(minute=30, hour=3), "cron", "30 3 * * *"),
        (crontab(minute="*/15"), "cron", "*/15 * * * *"),
        (crontab(minute=0, hour="*/6"), "cron", "0 */6 * * *"),
        (crontab(minute=0, hour=[9, 17]), "cron", "0 9,17 * * *"),
        (crontab(minute={0, 1, 2, 30}), "cron", "0-2,30 * * * *"),
        (crontab(0, 22, day_of_week="mon-fri"), "cron", "0 22 * * mon-fri"),
        (crontab(0, 22, day_of_week="monday,friday"), "cron", "0 22 * * 1,5"),
        (crontab(0, 22, day_of_week="sat-sun"), "cron", "0 22 * * sat-sun"),
        (crontab(0, 22, day_of_week="fri-tue"), "cron", "0 22 * * 0-2,5,6"),
        (crontab(0, "22-2"), "cron", "0 0-2,22,23 * * *"),
        (crontab(0, 0, day_of_month="1", month_of_year="1,7"), "cron", "0 0 1 1,7 *"),
        (crontab(0, 0, day_of_week="mon", day_of_month="1-7"), "cron", "0 0 1-7 * &mon"),
        (crontab(0, 0, day_of_week="*/2", day_of_month="1-7"), "cron", "0 0 1-7 * */2"),
        (sun("sunset", 25.03, 121.56), "solar", "sunset@25.03,121.56"),
    ],
)
def test_schedules(given, kind: str, expression: str) -> None:
    spec, notes = translated({"schedule": given})
    assert spec.cadence() == (kind, expression)
    assert (spec.timezone, spec.overlap, notes) == ("Asia/Taipei", "allow", [])


@pytest.mark.parametrize(
    ("step", "expression"),
    [
        (timedelta(days=1), "0 0 * * *"),
        (timedelta(hours=1), "0 * * * *"),
        (timedelta(hours=6), "0 */6 * * *"),
        (timedelta(minutes=1), "* * * * *"),
        (timedelta(minutes=15), "*/15 * * * *"),
        (timedelta(seconds=10), "*/10 * * * * *"),
    ],
)
def test_relative_intervals_fire_by_the_clock(step: timedelta, expression: str) -> None:
    for entry in ({"schedule": step, "relative": True}, {"schedule": schedule(step, True)}):
        spec, notes = translated(entry)
        assert (spec.cron, notes) == (expression, [])


def test_relative_intervals_that_the_clock_does_not_know_are_told() -> None:
    spec, notes = translated({"schedule": timedelta(minutes=7), "relative": True})
    assert spec.cadence() == ("interval", "420s")
    assert "'relative'" in notes[0]


def test_options() -> None:
    spec, notes = translated(
        {
            "schedule": 30,
            "args": (1, "two"),
            "kwargs": {"full": True},
            "options": {
                "queue": Queue("fast"),
                "priority": 20,
                "expires": timedelta(minutes=5),
                "headers": {"x-tenant": "acme"},
                "countdown": 5,
                "serializer": "pickle",
            },
            "enabled": True,
        }
    )
    assert (spec.args, spec.kwargs, spec.queue) == ((1, "two"), {"full": True}, "fast")
    assert (spec.priority, spec.expires, spec.headers) == (9, 300, {"x-tenant": "acme"})
    assert len(notes) == 4
    for lost in ("'enabled'", "'countdown'", "'serializer'", "priority 20"):
        assert any(lost in note for note in notes)


def test_expiry_at_a_time_ends_the_schedule() -> None:
    moment = datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=8)))
    spec, _ = translated({"schedule": 30, "options": {"expires": moment}})
    assert (spec.expires, spec.ends_at) == (None, "2030-01-01T00:00:00+08:00")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"task": "t", "schedule": 0.2}, "shortest is 1s"),
        ({"task": "t", "schedule": True}, "no schedule"),
        ({"task": "t", "schedule": "hourly"}, "no schedule"),
        ({"task": "t", "schedule": schedule(None)}, "no interval"),
        ({"task": "t", "schedule": Weekly()}, "Weekly is a schedule class of your own"),
        ({"task": "t", "schedule": sun("moonrise", 1, 2)}, "unknown solar event"),
        ({"task": "t", "schedule": 5, "args": [object()]}, "is not JSON"),
        (
            {"task": "t", "schedule": 5, "options": {"expires": "soon"}},
            "neither seconds nor a time",
        ),
        ({"task": "t"}, "no task or no schedule"),
        ({"schedule": 5}, "no task or no schedule"),
        ("t", "not a dictionary"),
    ],
)
def test_what_cannot_be_translated_is_told(entry, told: str) -> None:
    assert told in refused(entry)


def test_one_bad_entry_does_not_stop_the_others() -> None:
    entries = {"bad": 5, "good": TASK | {"schedule": 30}}
    found = from_beat_schedule(entries, timezone="UTC")
    assert [spec.name for spec in found.specs] == ["good"]
    assert found.refused.keys() == {"bad"}


def test_the_zone_of_an_application() -> None:
    app = Celery("x", set_as_current=False)
    app.conf.update(timezone="Europe/Berlin", beat_schedule={"x": TASK | {"schedule": crontab()}})
    found = from_beat_schedule(app.conf.beat_schedule, timezone=str(app.timezone))
    assert found.specs[0].timezone == "Europe/Berlin"


@pytest.mark.parametrize("seed", range(60))
def test_a_crontab_fires_on_the_days_and_times_that_celery_means(seed: int) -> None:
    draw = random.Random(seed)

    def some(low: int, high: int):
        form = draw.random()
        if form < 0.35:
            return "*"
        if form < 0.5:
            return f"*/{draw.randint(1, 9)}"
        if form < 0.65:
            return f"{draw.randint(low, high)}-{draw.randint(low, high)}"
        numbers = {draw.randint(low, high) for _ in range(draw.randint(1, 4))}
        return draw.choice((numbers, sorted(numbers), ",".join(map(str, numbers))))

    while True:
        try:
            given = crontab(some(0, 59), some(0, 23), some(0, 6), some(1, 31), some(1, 12))
            break
        except ValueError:
            continue
    start = datetime(2027, 1, 1, tzinfo=UTC)
    days = (start + timedelta(days=n) for n in range(800))
    expected = (
        day + timedelta(hours=hour, minutes=minute)
        for day in days
        # A crontab wants all of them: month, day of month and day of week.
        if day.month in given.month_of_year
        and day.day in given.day_of_month
        and day.isoweekday() % 7 in given.day_of_week
        for hour in sorted(given.hour)
        for minute in sorted(given.minute)
    )
    cadence = parse("cron", crontab_expression(given), "UTC", anchor=ANCHOR)
    at = start - timedelta(seconds=1)
    for wanted in itertools.islice(expected, 3000):
        at = cadence.after(at)
        assert at == wanted, crontab_expression(given)
