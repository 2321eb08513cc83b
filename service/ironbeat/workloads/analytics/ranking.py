"""Which questions are hot, and where they are going: pure functions of counts a day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

# A question asked a week ago counts half as much as one asked today.
HALF_LIFE_DAYS = 7.0

# What is compared with what came before it.
TREND_DAYS = 7

# The change that is more than a wobble, and the number below which nothing can be said.
RISING, FALLING = 1.5, 1 / 1.5
FEW = 3

Trend = Literal["new", "rising", "steady", "falling", "rare"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a group stands on a day.

    ``hotness``: messages, each worth half after :data:`HALF_LIFE_DAYS`. ``recent`` and
    ``previous``: messages of the last :data:`TREND_DAYS` days, and of as many before. ``change``:
    the ratio of both, each with one added, so that 0 to 1 is no miracle.
    """

    hotness: float
    recent: int
    previous: int
    change: float
    trend: Trend


def standing(days: Mapping[date, int], today: date) -> Standing:
    """How a group with so many messages a day stands at the end of ``today``."""
    hotness = 0.0
    recent = previous = 0
    before = False
    edge, older = today - timedelta(days=TREND_DAYS), today - timedelta(days=2 * TREND_DAYS)
    for day, messages in days.items():
        if day > today:
            continue
        hotness += messages * 0.5 ** ((today - day).days / HALF_LIFE_DAYS)
        if day > edge:
            recent += messages
        elif day > older:
            previous += messages
        before = before or day <= edge
    change = (recent + 1) / (previous + 1)
    return Standing(hotness, recent, previous, change, _trend(recent, previous, change, before))


def _trend(recent: int, previous: int, change: float, before: bool) -> Trend:
    if not before and recent:
        return "new"
    if max(recent, previous) < FEW:
        return "rare"
    if change >= RISING:
        return "rising"
    return "falling" if change <= FALLING else "steady"
