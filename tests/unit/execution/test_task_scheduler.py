"""When a worker leaves its broker for the ledger, and when it goes back."""

from __future__ import annotations

import pytest

from ironbeat.execution import task_scheduler
from ironbeat.execution.task_scheduler import TaskScheduler


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Breaker:
    open = False

    def trip(self, seconds: float | None = None) -> None:
        self.open = True

    def reset(self) -> None:
        self.open = False


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    found = Time()
    monkeypatch.setattr(task_scheduler, "monotonic", found)
    return found


def refused() -> None:
    raise ConnectionError("refused")


def taken() -> None:
    return None


def test_a_restart_of_the_broker_changes_nothing(time: Time) -> None:
    breaker = Breaker()
    scheduler = TaskScheduler(taken, breaker)
    scheduler.ask(refused)
    time.now += 2.0
    scheduler.ask(refused)
    assert (scheduler.drawing, breaker.open) == (False, False)
    scheduler.ask(taken)
    time.now += 2.0
    scheduler.ask(refused)
    assert not scheduler.drawing


def test_a_broker_that_stays_away_is_left_and_one_that_stays_is_gone_back_to(time: Time) -> None:
    breaker = Breaker()
    scheduler = TaskScheduler(taken, breaker)
    scheduler.ask(refused)
    time.now += task_scheduler.LOST_SECONDS
    scheduler.ask(refused)
    assert (scheduler.drawing, scheduler.source, breaker.open) == (True, "ledger", True)
    assert scheduler.changed.is_set()
    scheduler.ask(taken)
    assert scheduler.drawing
    # It comes and goes.
    time.now += 0.5
    scheduler.ask(refused)
    time.now += 0.5
    scheduler.ask(taken)
    time.now += 0.9
    scheduler.ask(taken)
    assert scheduler.drawing
    time.now += 0.1
    scheduler.ask(taken)
    assert (scheduler.drawing, scheduler.source, breaker.open) == (False, "broker", False)


def test_without_a_broker_runs_are_drawn_for_ever() -> None:
    assert TaskScheduler(None, Breaker()).drawing
