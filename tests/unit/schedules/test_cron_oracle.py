"""The cadence of cron expressions against cronsim, and against the definition itself."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, _zoneinfo, available_timezones  # type: ignore[attr-defined]

import pytest
from cron_reference import BoundedCronSim, Lost, fires
from cronsim import CronSimError

from ironbeat.schedules.cadence import CadenceError, parse

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)

# Half-hour changes, offsets with half and quarter hours, changes at midnight, skipped days,
# winter time in the southern hemisphere, negative summer time, abolished summer time.
NOTABLE = (
    "Africa/Cairo",
    "Africa/Casablanca",
    "Africa/Windhoek",
    "America/Havana",
    "America/New_York",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Pyongyang",
    "Asia/Taipei",
    "Asia/Tehran",
    "Atlantic/Azores",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Europe/Berlin",
    "Europe/Dublin",
    "Europe/London",
    "Europe/Moscow",
    "Pacific/Apia",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "UTC",
)


@cache
def transitions(name: str) -> list[int]:
    """When a zone's clocks changed, since the time when all zones had whole minutes."""
    known = _zoneinfo.ZoneInfo(name)
    past = [at for at in known._trans_utc if at > 100_000_000]
    rule = known._tz_after
    years = range(2038, 2061) if hasattr(rule, "transitions") else ()
    standard = rule.std.utcoff if hasattr(rule, "std") else timedelta(0)
    future = [int(local - standard.total_seconds()) for y in years for local in rule.transitions(y)]
    return past + future


class Expressions:
    """Random cron expressions."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def _term(self, low: int, high: int) -> str:
        draw = self.random.random()
        if draw < 0.6:
            return str(self.random.randint(low, high))
        # Not a-a/n: cronsim reads "3-3/4" as "3/4"; other crons, and this one, as "3".
        first = self.random.randint(low, high - 1)
        last = self.random.randint(first + 1, high)
        if draw < 0.8:
            return f"{first}-{last}"
        if draw < 0.9:
            return f"{first}-{last}/{self.random.randint(1, 9)}"
        return f"{first}/{self.random.randint(1, 9)}"

    def _field(self, low: int, high: int, star: float) -> str:
        draw = self.random.random()
        if draw < star:
            return "*"
        if draw < star + 0.12:
            return f"*/{self.random.randint(1, high)}"
        return ",".join(self._term(low, high) for _ in range(self.random.choice((1, 1, 1, 2, 3))))

    def draw(self) -> str:
        chance, choose = self.random.random, self.random.choice
        # The small hours are when clocks change.
        hour = self._field(0, 23, 0.3) if chance() < 0.5 else self._field(0, 4, 0.1)
        monthday = self._field(1, 31, 0.6) if chance() > 0.08 else choose(("L", "LW", "1,L"))
        names = ("1#2", "FRI#1", "5L", "0L", "sun", "MON-FRI", "7", "tue,thu")
        weekday = self._field(0, 7, 0.6) if chance() > 0.1 else choose(names)
        parts = [self._field(0, 59, 0.3), hour, monthday, self._field(1, 12, 0.8), weekday]
        if chance() < 0.25:
            parts.insert(0, self._field(0, 59, 0.2))
        return " ".join(parts)


def starts(seed: int) -> Iterator[tuple[str, datetime]]:
    """Random zones with a time each, as a rule in the days before the clocks change there."""
    draw = random.Random(seed * 7919)
    every = sorted(available_timezones() - {"localtime", "Factory"})
    while True:
        name = draw.choice(NOTABLE) if draw.random() < 0.6 else draw.choice(every)
        changes = transitions(name)
        if changes and draw.random() < 0.8:
            at = draw.choice(changes) - draw.randint(0, 4 * 86_400)
        else:
            at = draw.randint(100_000_000, 2_800_000_000)
        yield name, datetime.fromtimestamp(at, UTC)


def compare(seed: int, wanted: int) -> tuple[int, list[str]]:
    """Walk random expressions with both; returns how many fires agreed and what differed."""
    expressions, places = Expressions(seed), starts(seed)
    agreed, differing = 0, []
    while agreed < wanted:
        expression = expressions.draw()
        name, start = next(places)
        zone = ZoneInfo(name)
        local = start.astimezone(zone)
        if local.fold:
            continue  # cronsim forgets which of two equal times it was started at
        try:
            oracle = BoundedCronSim(expression, local)
            cadence = parse("cron", expression, name, anchor=ANCHOR)
        except (CronSimError, CadenceError):
            continue  # who refuses what is another test's subject
        at = start
        for _ in range(6):
            try:
                expected = next(oracle).astimezone(UTC)
            except (StopIteration, Lost):
                break
            found = cadence.after(at)
            if found != expected:
                differing += judge(expression, name, at, found, expected)
                break
            assert cadence.before(found) == found
            assert cadence.count(at, found) == 1
            agreed += 1
            at = found
    return agreed, differing


def judge(
    expression: str, name: str, at: datetime, found: datetime | None, expected: datetime
) -> list[str]:
    """Let the definition decide a difference; returns why the platform is wrong, if it is."""
    until = max(found or expected, expected)
    truth = next(fires(expression, ZoneInfo(name), at, until), None)
    if truth == found:
        return []
    return [f"{expression!r} in {name} after {at}: {found}, cronsim {expected}, in truth {truth}"]


@pytest.mark.parametrize("seed", range(4))
def test_fires_as_cronsim_does_wherever_the_clocks_change(seed: int) -> None:
    agreed, wrong = compare(seed, 4_000)
    assert not wrong
    assert agreed >= 4_000


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 104))
def test_fires_as_cronsim_does_at_length(seed: int) -> None:
    agreed, wrong = compare(seed, 100_000)
    assert not wrong
    assert agreed >= 100_000


@pytest.mark.parametrize("name", NOTABLE)
def test_every_fire_around_a_change_is_as_defined(name: str) -> None:
    draw = random.Random(name)
    expressions = Expressions(draw.randint(0, 10**9))
    changes = transitions(name) or [1_700_000_000]
    zone, done = ZoneInfo(name), 0
    while done < 6:
        expression = expressions.draw()
        if len(expression.split()) == 6:
            continue
        change = datetime.fromtimestamp(draw.choice(changes), UTC).replace(second=0)
        start, end = change - timedelta(hours=30), change + timedelta(hours=30)
        try:
            cadence = parse("cron", expression, name, anchor=ANCHOR)
        except CadenceError:
            continue
        expected = list(fires(expression, zone, start, end))
        walked = list(itertools.islice(walk(cadence, start, end), len(expected) + 1))
        assert walked == expected, (expression, name)
        back = list(itertools.islice(walk_back(cadence, start, end), len(expected) + 1))
        assert back == expected[::-1], (expression, name)
        assert cadence.count(start, end) == len(expected), (expression, name)
        done += 1


def walk(cadence, start, end):
    at = cadence.after(start)
    while at is not None and at <= end:
        yield at
        at = cadence.after(at)


def walk_back(cadence, start, end):
    at = cadence.before(end)
    while at is not None and at > start:
        yield at
        at = cadence.before(at - timedelta(microseconds=1))


def test_refuses_what_cronsim_refuses() -> None:
    expressions = Expressions(99)
    draw = random.Random(99)
    refused = 0
    for _ in range(4_000):
        text = list(expressions.draw())
        # Damage it a little.
        text[draw.randrange(len(text))] = draw.choice("0123456789-/,*#L? x")
        expression = "".join(text)
        if "?" in expression or len(expression.split()) not in (5, 6):
            continue
        try:
            BoundedCronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError:
            refused += 1
            with pytest.raises(CadenceError):
                parse("cron", expression, "UTC", anchor=ANCHOR)
        except AssertionError:
            pass  # cronsim's own
    assert refused > 500
