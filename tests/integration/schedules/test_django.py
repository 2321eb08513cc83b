"""django-celery-beat's tables, read from real databases and taken over."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from ironbeat.schedules import planner, store
from ironbeat.schedules.imports import ImportProblem, from_django, take_over
from ironbeat.workload import ScheduleSpec

TABLES = Path(__file__).with_name("django_celery_beat.sql")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
TASK: dict[str, Any] = {
    "task": "shop.sync",
    "args": "[]",
    "kwargs": "{}",
    "headers": "{}",
    "enabled": True,
    "one_off": False,
    "total_run_count": 0,
    "date_changed": NOW,
    "description": "",
}
CRONTAB = {
    "minute": "0",
    "hour": "*",
    "day_of_week": "*",
    "day_of_month": "*",
    "month_of_year": "*",
    "timezone": "Europe/Berlin",
}


class Django:
    """A Django project's database."""

    def __init__(self, url: str) -> None:
        self.url = url
        with psycopg.connect(url) as connection:
            connection.execute(TABLES.read_text().encode())

    def insert(self, table: str, **values: Any) -> int:
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING id").format(
            sql.Identifier(f"django_celery_beat_{table}"),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(map(sql.Placeholder, values)),
        )
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement, values).fetchone()[0]

    def task(self, name: str, kind: str | None = None, row: dict | None = None, **more) -> None:
        given = dict(TASK, name=name, **more)
        if kind is not None:
            given[f"{kind}_id"] = self.insert(f"{kind}schedule", **row)
        self.insert("periodictask", **{key: given[key] for key in given})

    def read(self):
        return from_django(self.url, timezone="Asia/Taipei", now=NOW)

    def only(self) -> tuple[ScheduleSpec, list[str]]:
        found = self.read()
        assert found.refused == {}
        (spec,) = found.specs
        return spec, found.notes.get(spec.name, [])


@pytest.fixture
def django(empty_database_url: str) -> Django:
    return Django(empty_database_url)


@pytest.mark.parametrize(
    ("kind", "row", "expression", "timezone"),
    [
        ("interval", {"every": 30, "period": "seconds"}, "30s", "Asia/Taipei"),
        ("interval", {"every": 2, "period": "days"}, "172800s", "Asia/Taipei"),
        ("interval", {"every": 1_500_000, "period": "microseconds"}, "1.5s", "Asia/Taipei"),
        ("crontab", CRONTAB, "0 * * * *", "Europe/Berlin"),
        (
            "crontab",
            CRONTAB | {"hour": "0, 12", "day_of_month": "1-7", "day_of_week": "monday"},
            "0 0,12 1-7 * &1",
            "Europe/Berlin",
        ),
        (
            "solar",
            {"event": "sunset", "latitude": "25.03", "longitude": "-121.56"},
            "sunset@25.030000,-121.560000",
            "Asia/Taipei",
        ),
        ("clocked", {"clocked_time": NOW}, "2026-05-01T12:00:00+00:00", "Asia/Taipei"),
    ],
)
def test_each_kind(django, kind: str, row: dict, expression: str, timezone: str) -> None:
    django.task("x", kind, row, one_off=kind == "clocked")
    spec, notes = django.only()
    assert spec.cadence()[1] == expression
    assert (spec.timezone, spec.enabled, spec.overlap, notes) == (timezone, True, "allow", [])


def test_everything_a_task_may_carry(django) -> None:
    django.task(
        "x",
        "crontab",
        CRONTAB,
        args='[1, "two"]',
        kwargs='{"full": true}',
        headers='{"x-tenant": "acme"}',
        queue="fast",
        priority=5,
        expire_seconds=600,
        expires=NOW + timedelta(days=30),
        start_time=NOW + timedelta(days=1),
        enabled=False,
    )
    spec, notes = django.only()
    assert (spec.args, spec.kwargs, spec.headers) == (
        [1, "two"],
        {"full": True},
        {"x-tenant": "acme"},
    )
    assert (spec.queue, spec.priority, spec.expires, spec.enabled) == ("fast", 5, 600, False)
    assert datetime.fromisoformat(spec.starts_at) == NOW + timedelta(days=1)
    assert datetime.fromisoformat(spec.ends_at) == NOW + timedelta(days=30)
    assert notes == []


def test_what_is_lost_is_told(django) -> None:
    django.task("x", "crontab", CRONTAB, exchange="e", routing_key="r", priority=200)
    spec, notes = django.only()
    assert spec.priority == 9
    assert [note.split()[0] for note in notes] == ["exchange", "routing_key", "priority"]


def test_an_interval_goes_on_from_its_last_run(django, database_url) -> None:
    last = datetime.now(UTC) - timedelta(days=3)
    django.task("weekly", "interval", {"every": 7, "period": "days"}, last_run_at=last)
    with psycopg.connect(database_url, autocommit=True) as connection:
        assert take_over(connection, django.read(), timezone="UTC") == (["weekly"], [])
        planner.plan_new(connection)
        row = store.get(connection, "weekly")
    assert abs(row.next_fire_at - (last + timedelta(days=7))) < timedelta(seconds=2)


def test_tasks_that_run_once(django) -> None:
    django.task("next hour", "crontab", CRONTAB, one_off=True)
    django.task("in 5 m", "interval", {"every": 5, "period": "minutes"}, one_off=True)
    later = NOW + timedelta(days=2)
    django.task("from", "crontab", CRONTAB, one_off=True, start_time=later)
    django.task("has run", "crontab", CRONTAB, one_off=True, total_run_count=1)
    found = {spec.name: spec for spec in django.read().specs}
    assert datetime.fromisoformat(found["next hour"].once) == NOW + timedelta(hours=1)
    assert datetime.fromisoformat(found["in 5 m"].once) == NOW + timedelta(minutes=5)
    assert datetime.fromisoformat(found["from"].once) == later
    assert not found["has run"].enabled


@pytest.mark.parametrize(
    ("kind", "row", "more", "told"),
    [
        ("interval", {"every": 200, "period": "microseconds"}, {}, "shortest is 1s"),
        ("interval", {"every": 2, "period": "moons"}, {}, "no interval"),
        ("crontab", CRONTAB | {"minute": "61"}, {}, "crontab is wrong"),
        ("crontab", CRONTAB | {"minute": "x"}, {}, "crontab is wrong"),
        ("crontab", CRONTAB | {"timezone": "Mars/Olympus"}, {}, "unknown time zone"),
        ("crontab", CRONTAB, {"args": "[1,"}, "not JSON"),
        ("crontab", CRONTAB, {"kwargs": "[]"}, "not a JSON dict"),
        (None, None, {}, "no schedule"),
    ],
)
def test_what_cannot_be_translated_is_told(django, kind, row, more, told: str) -> None:
    django.task("good", "crontab", CRONTAB)
    django.task("bad", kind, row, **more)
    found = django.read()
    assert [spec.name for spec in found.specs] == ["good"]
    assert told in found.refused["bad"]


def test_an_older_release(django) -> None:
    """Before 1.6 there were no clocked times, priorities, headers, nor expiry in seconds."""
    django.task("x", "crontab", CRONTAB)
    with psycopg.connect(django.url) as connection:
        connection.execute(
            "ALTER TABLE django_celery_beat_periodictask DROP clocked_id, DROP priority, "
            "DROP headers, DROP expire_seconds, DROP one_off, DROP start_time"
        )
        connection.execute("DROP TABLE django_celery_beat_clockedschedule")
        connection.execute("ALTER TABLE django_celery_beat_crontabschedule DROP timezone")
    spec, _ = django.only()
    assert (spec.cron, spec.timezone) == ("0 * * * *", "Asia/Taipei")


def test_taking_over_twice_adds_nothing_and_overwrites_nothing(django, database_url) -> None:
    django.task("x", "crontab", CRONTAB)
    with psycopg.connect(database_url, autocommit=True) as connection:
        take_over(connection, django.read(), timezone="UTC", workload="django")
        store.edit(connection, "x", {"cron": "5 * * * *"})
        assert take_over(connection, django.read(), timezone="UTC") == ([], ["x"])
        row = store.get(connection, "x")
    assert (row.definition.expression, row.definition.workload) == ("5 * * * *", "django")


def test_a_database_of_something_else_is_told(empty_database_url, tmp_path) -> None:
    with pytest.raises(ImportProblem, match="no table 'django_celery_beat_periodictask'"):
        from_django(empty_database_url, timezone="UTC")
    with pytest.raises(ImportProblem, match="cannot be read"):
        from_django("postgresql://127.0.0.1:9/nothing", timezone="UTC")
    with pytest.raises(ImportProblem, match="cannot be read"):
        from_django("oracle+missing://nobody", timezone="UTC")


def test_a_sqlite_file(tmp_path) -> None:
    """As Django's migrations make it there: times without an offset, truth as a number."""
    path = tmp_path / "db.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE django_celery_beat_crontabschedule (id integer PRIMARY KEY,
                minute varchar(240), hour varchar(96), day_of_week varchar(64),
                day_of_month varchar(124), month_of_year varchar(64), timezone varchar(63));
            CREATE TABLE django_celery_beat_intervalschedule (id integer PRIMARY KEY,
                every integer, period varchar(24));
            CREATE TABLE django_celery_beat_solarschedule (id integer PRIMARY KEY,
                event varchar(24), latitude decimal, longitude decimal);
            CREATE TABLE django_celery_beat_clockedschedule (id integer PRIMARY KEY,
                clocked_time datetime);
            CREATE TABLE django_celery_beat_periodictask (id integer PRIMARY KEY,
                name varchar(200), task varchar(200), args text, kwargs text, queue varchar(200),
                expires datetime, enabled bool, last_run_at datetime, total_run_count integer,
                one_off bool, start_time datetime, priority integer, headers text,
                expire_seconds integer, crontab_id integer, interval_id integer, solar_id integer,
                clocked_id integer);
            INSERT INTO django_celery_beat_solarschedule VALUES (1, 'sunset', 25.03, 121.56);
            INSERT INTO django_celery_beat_clockedschedule VALUES (1, '2030-01-01 09:30:00');
            INSERT INTO django_celery_beat_periodictask (name, task, args, kwargs, headers, enabled,
                total_run_count, one_off, solar_id, start_time, expires) VALUES ('sun', 't', '[]',
                '{}', '{}', 0, 0, 0, 1, '2026-05-01 12:00:00', '2026-06-01 12:00:00.5');
            INSERT INTO django_celery_beat_periodictask (name, task, args, kwargs, headers, enabled,
                total_run_count, one_off, clocked_id) VALUES ('once', 't', '[]', '{}', '{}', 1, 0,
                1, 1);
            """
        )
    found = from_django(f"sqlite:///{path}", timezone="UTC")
    assert found.refused == {}
    by_name = {spec.name: spec for spec in found.specs}
    assert by_name["sun"].solar == "sunset@25.030000,121.560000"
    assert by_name["sun"].enabled is False
    assert datetime.fromisoformat(by_name["sun"].starts_at) == NOW
    assert by_name["once"].once == "2030-01-01T09:30:00+00:00"
