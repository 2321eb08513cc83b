"""The fires of a period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ironbeat.schedules import cadence
from ironbeat.watch.lately import MOST_TICKS, coming

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def times(text: str) -> cadence.Cadence:
    return cadence.parse("interval", text, "UTC", anchor=NOW)


def test_few_fires_are_named_one_by_one():
    found = coming("x", times("6h"), NOW, NOW + timedelta(days=1))
    assert found.at == tuple(NOW + timedelta(hours=6 * n) for n in range(5))
    assert found.number == 5


def test_many_fires_are_only_counted():
    found = coming("x", times("1s"), NOW, NOW + timedelta(days=1))
    assert found.number == 86401 and found.at == () and found.number > MOST_TICKS
