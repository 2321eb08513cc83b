from __future__ import annotations

import pytest

from ironbeat.execution.pace import Pace


def expected_batch(pace: Pace, queue: str) -> int:
    return min(pace.limit, max(1, int(pace.budget / pace.cost(queue))))


def test_a_new_queue_begins_with_single_messages() -> None:
    assert expected_batch(Pace(), "new") == 1


def test_short_messages_make_long_batches_after_a_while() -> None:
    pace = Pace(budget=0.010, limit=64)
    sizes = []
    for _ in range(12):
        size = expected_batch(pace, "short")
        sizes.append(size)
        pace.learn("short", size, size * 0.0001)
    assert sizes == sorted(sizes)
    assert sizes[1] < 4
    assert sizes[-1] == 64


def test_one_slow_batch_is_believed_at_once() -> None:
    pace = Pace(budget=0.010, limit=64)
    for _ in range(20):
        pace.learn("q", 10, 0.001)
    pace.learn("q", 1, 3.0)
    assert expected_batch(pace, "q") == 1
    assert pace.cost("q") == pytest.approx(3.0)


def test_queues_are_judged_separately() -> None:
    pace = Pace()
    for _ in range(20):
        pace.learn("short", 10, 0.001)
    pace.learn("long", 1, 60.0)
    assert expected_batch(pace, "short") == 64
    assert expected_batch(pace, "long") == 1


def test_messages_that_stay_are_taken_singly() -> None:
    pace = Pace()
    for _ in range(20):
        pace.learn("q", 10, 0.001)
    pace.single("q")
    assert expected_batch(pace, "q") == 1
