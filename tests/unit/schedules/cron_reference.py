"""What a cron expression means, spelled out: slow, obvious, and sharing no code with the platform.

Fields are read by cronsim, whose grammar is the standard; what the clocks do is enumerated here,
second by second or minute by minute. It tells who is right where cronsim and the platform differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


class Lost(Exception):
    """cronsim has gone astray; near some changes of clocks at midnight it never returns."""


class BoundedCronSim(CronSim):
    """cronsim that gives up instead of looping for ever."""

    ticks = 0

    def tick(self, seconds: int = 1) -> None:
        self.ticks += 1
        if self.ticks > 200_000:
            raise Lost
        super().tick(seconds)


def matches(fields: CronSim, wall: datetime) -> bool:
    """Whether a wall clock showing ``wall`` satisfies the expression."""
    return (
        wall.second in fields.seconds
        and wall.minute in fields.minutes
        and wall.hour in fields.hours
        and wall.month in fields.months
        and fields.match_day(wall.date())
    )


def fires(expression: str, zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """All fires in (start, end], in UTC, in order."""
    fields = CronSim(expression, datetime(2000, 1, 1))
    second, *_ = fields.parts
    minute, hour = fields.parts[1], fields.parts[2]
    six = len(expression.split()) == 6
    if not six and not minute.startswith("*") and not hour.startswith("*"):
        yield from _times_of_day(fields, zone, start, end)
        return
    step = MINUTE if second.isdigit() else SECOND
    yield from _wall_clock(fields, zone, start, end, step)


def _wall_clock(
    fields: CronSim, zone: ZoneInfo, start: datetime, end: datetime, step: timedelta
) -> Iterator[datetime]:
    """Every real instant at which the clock shows a match."""
    at = start.astimezone(UTC).replace(microsecond=0) + SECOND
    while at <= end:
        wall = at.astimezone(zone)
        if matches(fields, wall):
            yield at
        if step == MINUTE and wall.second == min(fields.seconds):
            # The next minute of the wall clock, unless the offset changes by odd seconds.
            at += MINUTE
        else:
            at += SECOND


def _times_of_day(
    fields: CronSim, zone: ZoneInfo, start: datetime, end: datetime
) -> Iterator[datetime]:
    """Each time on the calendar once: at its first coming, or right after the leap over it."""
    margin = timedelta(days=2)
    wall = (start.astimezone(zone).replace(tzinfo=None) - margin).replace(second=0, microsecond=0)
    last = end.astimezone(zone).replace(tzinfo=None) + margin
    before = None
    while wall <= last:
        if matches(fields, wall):
            shown = wall
            at = shown.replace(tzinfo=zone).astimezone(UTC)
            while at.astimezone(zone).replace(tzinfo=None) != shown:
                shown += MINUTE
                at = shown.replace(tzinfo=zone).astimezone(UTC)
            if start < at <= end and at != before:
                yield at
                before = at
        wall += MINUTE
