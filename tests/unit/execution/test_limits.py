from __future__ import annotations

import pytest

from ironbeat.execution.limits import Recycling, TimeLimits


@pytest.mark.parametrize(
    ("own", "default", "expected"),
    [
        ((None, None), (600, 900), (600, 900)),
        ((5, None), (600, 900), (5, 900)),
        ((None, 60), (600, 900), (None, 60)),
        ((10, 60), (600, 900), (10, 60)),
        ((None, None), (None, None), (None, None)),
        ((0, 0), (600, 900), (600, 900)),
    ],
)
def test_a_task_s_own_limits_come_before_the_worker_s(
    own: tuple[float | None, float | None],
    default: tuple[float | None, float | None],
    expected: tuple[float | None, float | None],
) -> None:
    found = TimeLimits.of(TimeLimits(*own), TimeLimits(*default))
    assert (found.soft, found.hard) == expected


RECYCLING = Recycling(max_tasks=1000, max_memory_kb=512_000, min_age=15, min_age_by_count=300)


@pytest.mark.parametrize(
    ("tasks", "age", "memory_kb", "goes"),
    [
        (999, 10_000, 0, False),
        (1000, 301, 0, True),
        (50_000, 60, 0, False),  # a busy worker would do nothing but start
        (1, 60, 512_001, True),
        (1, 60, 512_000, False),
        (1, 14, 900_000, False),  # supervisord would count it as failed to start
    ],
)
def test_a_process_goes_when_it_has_done_enough_and_is_old_enough(
    tasks: int, age: float, memory_kb: int, goes: bool
) -> None:
    assert (RECYCLING.reason(tasks, age, memory_kb) is not None) is goes


def test_no_limits_no_recycling() -> None:
    assert Recycling().reason(10**9, 10**9, 10**9) is None
