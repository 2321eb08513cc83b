"""What the live screen shows of a look."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from ironbeat.cli.monitor import Sort, chosen
from ironbeat.cli.views import BAR_WIDTH, queue_bars
from ironbeat.watch import QueueStatus, Waiting


@dataclass(frozen=True)
class Look:
    queues: tuple
    schedules: tuple = ()
    at: datetime = datetime(2026, 3, 10, tzinfo=UTC)


def queue(name: str, length: int, age: float = 0.0, consumers: int = 1) -> QueueStatus:
    oldest = Waiting("i", "t", 0, age) if length else None
    return QueueStatus(name, length, {0: length}, oldest, {}, consumers)


LOOK = Look((queue("default", 2, 90.0), queue("docks", 40, 3.0), queue("empty", 0)))


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        (Sort.NAME, ["default", "docks", "empty"]),
        (Sort.LENGTH, ["docks", "default", "empty"]),
        (Sort.AGE, ["default", "docks", "empty"]),
    ],
)
def test_queues_in_the_order_asked_for(sort, names):
    seen, _ = chosen(LOOK, [], sort, None)
    assert [each.name for each in seen.queues] == names


def test_only_what_was_asked_for():
    seen, _ = chosen(LOOK, [], Sort.NAME, "DOCK")
    assert [each.name for each in seen.queues] == ["docks"]


def test_a_bar_is_the_share_of_the_longest_and_whatever_waits_shows():
    bars = list(queue_bars((*LOOK.queues, queue("few", 1, consumers=0))).columns[1].cells)
    assert [len(str(bar)) for bar in bars] == [2, BAR_WIDTH, 0, 1]
    assert [bar.style for bar in bars if str(bar)] == ["green", "yellow", "red"]
