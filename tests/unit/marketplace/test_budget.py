"""A run ends its batches in time."""

from __future__ import annotations

import time

from ironbeat.workloads.marketplace.batches import Budget


def test_a_budget_is_spent_when_its_seconds_are_over() -> None:
    budget = Budget(0.05)
    assert not budget.spent
    time.sleep(0.06)
    assert budget.spent


def test_no_budget_is_spent_at_once() -> None:
    assert Budget(0).spent
