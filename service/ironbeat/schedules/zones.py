"""Where a time zone's offset from UTC is constant: the arithmetic under every local time.

``zoneinfo`` answers "what is the wall clock now?" but not "until when does this offset hold?".
:class:`Zone` finds that out once for each block of 128 days and remembers it, so that searching a
calendar needs plain integer arithmetic and no conversion at all away from a change of the clocks.
Times are whole seconds: of UTC since 1970, or of the wall clock counted the same way.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = 86_400

_BLOCK = 128 * DAY
# Clocks have never changed twice within four days anywhere, so probing every second day sees
# every change.
_PROBE = 2 * DAY
_EARLIEST = datetime(1, 1, 3, tzinfo=UTC)
_LATEST = datetime(9999, 12, 29, tzinfo=UTC)


def seconds_of(instant: datetime) -> int:
    """Whole seconds since 1970 of an aware ``instant``, fractions cut off."""
    since = instant - EPOCH
    return since.days * DAY + since.seconds


def instant_of(seconds: int) -> datetime:
    """The instant ``seconds`` after 1970, in UTC."""
    return EPOCH + timedelta(seconds=seconds)


FIRST_SECOND = seconds_of(_EARLIEST)
LAST_SECOND = seconds_of(_LATEST)


class Stretch(NamedTuple):
    """A time from ``start`` until before ``end`` during which the wall clock is UTC + ``offset``.

    ``before`` is the offset that held until ``start``; it differs from ``offset`` where the clocks
    changed, which it then did exactly at ``start``. All in seconds.
    """

    start: int
    end: int
    offset: int
    before: int


class Zone:
    """A time zone as a sequence of :class:`Stretch`."""

    __slots__ = ("_blocks", "info")

    def __init__(self, info: ZoneInfo) -> None:
        self.info = info
        self._blocks: dict[int, tuple[Stretch, ...]] = {}

    def stretch(self, at: int) -> Stretch:
        """The stretch that holds the second ``at``. It may end where nothing changes."""
        block = at // _BLOCK
        found = self._blocks.get(block)
        if found is None:
            found = self._blocks[block] = self._explore(block)
        for each in found:
            if at < each.end:
                return each
        raise AssertionError("a block's stretches cover the block")

    def offset(self, at: int) -> int:
        """Seconds that the wall clock is ahead of UTC at the second ``at``."""
        at = min(max(at, FIRST_SECOND), LAST_SECOND)
        ahead = instant_of(at).astimezone(self.info).utcoffset()
        assert ahead is not None
        return ahead.days * DAY + ahead.seconds

    def _explore(self, block: int) -> tuple[Stretch, ...]:
        # From a little before the block, so that a change just before it is not forgotten while
        # the wall clock still shows times that it has shown already.
        start, end = block * _BLOCK - _PROBE, (block + 1) * _BLOCK
        before, offset = self.offset(start - 1), self.offset(start)
        stretches = []
        for probe in range(start + _PROBE, end + 1, _PROBE):
            if self.offset(probe - 1) == offset:
                continue
            change = self._change(probe - _PROBE - 1, probe - 1, offset)
            stretches.append(Stretch(start, change, offset, before))
            start, before, offset = change, offset, self.offset(change)
        stretches.append(Stretch(start, end, offset, before))
        return tuple(each for each in stretches if each.end > block * _BLOCK)

    def _change(self, low: int, high: int, offset: int) -> int:
        """The first second in (low, high] at which ``offset`` no longer holds."""
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset(middle) == offset:
                low = middle
            else:
                high = middle
        return high


@lru_cache(maxsize=1024)
def zone(name: str) -> Zone:
    """The time zone ``name`` of the IANA database, e.g. ``Europe/Berlin``.

    Raises :class:`ValueError` or :class:`zoneinfo.ZoneInfoNotFoundError` when there is none.
    """
    return Zone(ZoneInfo(name))
