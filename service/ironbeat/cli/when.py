"""Times as an operator types them: ``03:00``, ``2h`` (ago), ``yesterday``, or ISO 8601."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta, tzinfo
from typing import NoReturn

from ironbeat.cli.failures import CommandError, ExitStatus

ACCEPTED = "03:00, 2h (ago), today, yesterday 03:00, 2026-03-01, 2026-03-01T03:00[+08:00]"

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)(?:\s+ago)?")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


def _refuse(text: str, why: str) -> NoReturn:
    raise CommandError(f"{text!r} is not a time: {why}", f"Write {ACCEPTED}.", ExitStatus.USAGE)


def _clock(text: str) -> time | None:
    found = _CLOCK.fullmatch(text)
    if not found:
        return None
    try:
        return time(int(found[1]), int(found[2]), int(found[3] or 0))
    except ValueError as error:
        _refuse(text, str(error))


def instant(text: str, *, now: datetime, zone: tzinfo, after: datetime | None = None) -> datetime:
    """The instant that ``text`` means to somebody in ``zone`` at ``now``.

    A bare clock time is its last occurrence, or its first one after ``after``: ``--since 23:00
    --until 01:00`` is the night that has just been. Raises :class:`CommandError`.
    """
    wanted = text.strip()
    local = now.astimezone(zone)
    if wanted == "now":
        return local
    day, _, rest = wanted.partition(" ")
    if day in ("today", "yesterday"):
        clock = _clock(rest.strip() or "00:00")
        if clock is None:
            _refuse(text, f"{rest.strip()!r} is no time of day")
        date = local.date() - timedelta(days=day == "yesterday")
        return datetime.combine(date, clock, zone)
    if ago := _AGO.fullmatch(wanted):
        return local - timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])
    clock = _clock(wanted)
    if clock is not None:
        if after is not None:
            first = datetime.combine(after.astimezone(zone).date(), clock, zone)
            if first <= after:
                first = datetime.combine(first.date() + timedelta(days=1), clock, zone)
            return first
        last = datetime.combine(local.date(), clock, zone)
        if last > local:
            last = datetime.combine(local.date() - timedelta(days=1), clock, zone)
        return last
    try:
        parsed = datetime.fromisoformat(wanted)
    except ValueError:
        _refuse(text, "it is none of the forms known here")
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)


def span(
    since: str | None, until: str | None, *, now: datetime, zone: tzinfo
) -> tuple[datetime | None, datetime | None]:
    """The two ends of a period; either may be open. Raises :class:`CommandError`."""
    start = instant(since, now=now, zone=zone) if since else None
    end = instant(until, now=now, zone=zone, after=start) if until else None
    if start and end and end <= start:
        raise CommandError(
            f"the period ends ({end.isoformat()}) before it begins ({start.isoformat()})",
            "Exchange --since and --until.",
            ExitStatus.USAGE,
        )
    return start, end
