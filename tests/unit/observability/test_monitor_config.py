"""Schedules in Sentry's words."""

import pytest

from ironbeat.observability.sentry import Monitored, monitor_config, slug


@pytest.mark.parametrize(
    ("kind", "expression", "period", "schedule"),
    [
        ("cron", "0 3 * * *", None, {"type": "crontab", "value": "0 3 * * *"}),
        ("cron", "@daily", None, {"type": "crontab", "value": "0 0 * * *"}),
        ("cron", "30 0 3 * * MON", None, {"type": "crontab", "value": "0 3 * * MON"}),
        ("interval", "30s", 30.0, {"type": "interval", "value": 1, "unit": "minute"}),
        ("interval", "90s", 90.0, {"type": "interval", "value": 2, "unit": "minute"}),
        ("interval", "1h", 3600.0, {"type": "interval", "value": 60, "unit": "minute"}),
        ("solar", "sunset@25,121", None, {"type": "interval", "value": 1, "unit": "day"}),
    ],
)
def test_a_schedule_as_sentry_knows_it(kind, expression, period, schedule):
    config = monitor_config(Monitored(kind, expression, "Asia/Taipei", period, 900.0))
    assert config["schedule"] == schedule
    assert (config["timezone"], config["max_runtime"]) == ("Asia/Taipei", 15)


def test_what_fires_once_is_not_monitored():
    assert monitor_config(Monitored("once", "2030-01-01T00:00:00Z", "UTC")) is None


def test_slugs_are_allowed_and_tell_schedules_apart():
    assert slug("update-all-users-statistics") == "update-all-users-statistics"
    names = [
        "Nightly",
        "nightly",
        "每日清理",
        "每小时清理",
        "a" * 200,
        "a" * 199 + "b",
        "x/y",
        "x y",
    ]
    slugs = [slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    for made in slugs:
        assert 0 < len(made) <= 50
        assert all(c in "abcdefghijklmnopqrstuvwxyz0123456789_-" for c in made)
