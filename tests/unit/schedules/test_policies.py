"""Which fires a beat makes now, which it passes over, and what comes next."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ironbeat.schedules import policies
from ironbeat.schedules.cadence import Cadence, parse
from ironbeat.schedules.policies import (
    LATEST_WITHIN,
    MOST_FIRES,
    ON_TIME,
    SKIP_GRACE,
    Fire,
    Plan,
    due_at,
    first,
    jitter,
    plan,
)

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
DAY = timedelta(days=1)


def cadence(expression: str, kind: str = "interval", zone: str = "UTC") -> Cadence:
    return parse(kind, expression, zone, anchor=ANCHOR)


def decide(times: Cadence, scheduled_for: datetime, now: datetime, **policy) -> Plan:
    values = {
        "catch_up": "latest",
        "catch_up_max": 100,
        "catch_up_window": None,
        "ends_at": None,
        "jitter_seconds": 0,
        "key": "a schedule",
    }
    return plan(times, scheduled_for=scheduled_for, now=now, **(values | policy))


def nominal(decided: Plan) -> list[datetime]:
    return [fire.scheduled_for for fire in decided.fires]


POLICIES = [
    {"catch_up": "skip"},
    {"catch_up": "latest"},
    {"catch_up": "all", "catch_up_max": 1},
    {"catch_up": "window", "catch_up_window": SECOND},
]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("late", [timedelta(0), timedelta(milliseconds=40), ON_TIME])
def test_a_fire_on_time_is_made_whatever_the_policy(policy: dict, late: timedelta) -> None:
    decided = decide(cadence("30s"), NOON, NOON + late, **policy)
    assert decided == Plan((Fire(NOON, NOON),), (), NOON + 30 * SECOND, NOON + 30 * SECOND)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_beat_slower_than_the_schedule_leaves_no_fire_out(policy: dict) -> None:
    decided = decide(cadence("1s"), NOON, NOON + timedelta(seconds=3.5), **policy)
    assert nominal(decided) == [NOON + n * SECOND for n in range(4)]
    assert decided.skipped == ()
    assert decided.next_scheduled_for == NOON + 4 * SECOND


def test_before_its_time_nothing_happens() -> None:
    decided = decide(cadence("30s"), NOON, NOON - SECOND)
    assert decided == Plan((), (), NOON, NOON)


def test_latest_makes_the_newest_only() -> None:
    decided = decide(cadence("10m"), NOON, NOON + 3 * HOUR + 4 * MINUTE)
    assert nominal(decided) == [NOON + 3 * HOUR]
    (span,) = decided.skipped
    assert (span.first, span.last, span.count) == (NOON, NOON + 170 * MINUTE, 18)
    assert "'latest'" in span.reason
    assert decided.next_scheduled_for == NOON + 190 * MINUTE


@pytest.mark.parametrize(
    ("late", "made"), [(LATEST_WITHIN, 1), (LATEST_WITHIN + SECOND, 0), (DAY - SECOND, 0)]
)
def test_latest_makes_none_that_is_more_than_an_hour_late(late: timedelta, made: int) -> None:
    decided = decide(cadence("0 12 * * *", "cron"), NOON, NOON + late)
    assert len(decided.fires) == made
    assert sum(span.count for span in decided.skipped) == 1 - made
    assert decided.next_scheduled_for == NOON + DAY


@pytest.mark.parametrize(("late", "made"), [(SKIP_GRACE, 1), (SKIP_GRACE + SECOND, 0)])
def test_skip_passes_over_what_is_late(late: timedelta, made: int) -> None:
    decided = decide(cadence("0 12 * * *", "cron"), NOON, NOON + late, catch_up="skip")
    assert len(decided.fires) == made
    assert decided.next_scheduled_for == NOON + DAY


def test_all_makes_the_newest_up_to_its_number() -> None:
    decided = decide(cadence("1h"), NOON, NOON + 10 * HOUR, catch_up="all", catch_up_max=4)
    assert nominal(decided) == [NOON + n * HOUR for n in (7, 8, 9, 10)]
    assert decided.skipped[0].count == 7
    everything = decide(cadence("1h"), NOON, NOON + 10 * HOUR, catch_up="all", catch_up_max=11)
    assert len(everything.fires) == 11
    assert everything.skipped == ()


def test_window_makes_those_younger_than_it() -> None:
    window = timedelta(minutes=150)
    decided = decide(
        cadence("1h"), NOON, NOON + 10 * HOUR, catch_up="window", catch_up_window=window
    )
    assert nominal(decided) == [NOON + n * HOUR for n in (8, 9, 10)]


@pytest.mark.parametrize(
    "policy",
    [
        {"catch_up": "all", "catch_up_max": 10**6},
        {"catch_up": "window", "catch_up_window": 400 * DAY},
    ],
)
def test_no_policy_floods_the_queue(policy: dict) -> None:
    decided = decide(cadence("1s"), NOON, NOON + DAY, **policy)
    assert len(decided.fires) == MOST_FIRES
    assert decided.skipped[0].count == 86_401 - MOST_FIRES
    assert str(MOST_FIRES) in decided.skipped[0].reason


@pytest.mark.parametrize(("kind", "text"), [("interval", "1s"), ("cron", "* * * * * *")])
@pytest.mark.parametrize("catch_up", ["skip", "latest"])
def test_a_year_of_missed_seconds_is_counted_at_once(kind: str, text: str, catch_up: str) -> None:
    times = cadence(text, kind, "Europe/Berlin")
    decide(times, NOON, NOON + 365 * DAY, catch_up=catch_up)
    began = time.process_time()
    decided = decide(times, NOON, NOON + 365 * DAY, catch_up=catch_up)
    # Walking 31 million fires would take a minute.
    assert time.process_time() - began < 0.5
    assert len(decided.fires) + decided.skipped[0].count == 365 * 86_400 + 1
    assert decided.next_scheduled_for == NOON + 365 * DAY + SECOND


def test_what_comes_next_is_counted_from_the_schedule_not_from_now() -> None:
    decided = decide(cadence("7s"), ANCHOR, ANCHOR + timedelta(seconds=100.25))
    assert decided.next_scheduled_for == ANCHOR + 105 * SECOND


def test_nothing_fires_after_the_end() -> None:
    end = NOON + 30 * SECOND
    decided = decide(cadence("30s"), NOON + 30 * SECOND, NOON + 31 * SECOND, ends_at=end)
    assert nominal(decided) == [end]
    assert (decided.next_scheduled_for, decided.next_fire_at) == (None, None)
    late = decide(cadence("30s"), NOON, NOON + 3 * MINUTE, ends_at=end, catch_up="all")
    assert nominal(late) == [NOON, end]
    assert late.next_fire_at is None
    shortened = decide(cadence("30s"), NOON, NOON + SECOND, ends_at=NOON - SECOND)
    assert shortened == Plan((), (), None, None)


@pytest.mark.parametrize(("late", "made"), [(SECOND, 1), (HOUR, 1), (2 * HOUR, 0)])
def test_once_is_made_within_the_hour_and_never_again(late: timedelta, made: int) -> None:
    decided = decide(cadence("2026-05-01T12:00", "once"), NOON, NOON + late)
    assert len(decided.fires) == made
    assert sum(span.count for span in decided.skipped) == 1 - made
    assert decided.next_fire_at is None


# -- against the definition ------------------------------------------------------------------------

TIMES = st.sampled_from(
    [
        ("interval", "7s"),
        ("interval", "30s"),
        ("interval", "1h"),
        ("cron", "*/5 * * * *"),
        ("cron", "30 2 * * *"),
        ("cron", "0 9 * * mon-fri"),
        ("cron", "*/20 * * * * *"),
        ("solar", "sunset@25.03,121.56"),
    ]
)
CATCH_UP = st.sampled_from(["skip", "latest", "all", "window"])


@settings(max_examples=400, deadline=None)
@given(
    times=TIMES,
    start=st.datetimes(datetime(2026, 3, 27), datetime(2026, 3, 30), timezones=st.just(UTC)),
    late=st.integers(0, 200_000_000).map(lambda ms: timedelta(milliseconds=ms)),
    catch_up=CATCH_UP,
    catch_up_max=st.integers(1, 20),
    window=st.integers(1, 50_000).map(lambda s: timedelta(seconds=s)),
    jitter_seconds=st.sampled_from([0, 0, 3, 60, 100_000]),
    ends_after=st.none() | st.integers(0, 200_000).map(lambda s: timedelta(seconds=s)),
)
def test_a_plan_is_what_walking_every_fire_gives(
    times, start, late, catch_up, catch_up_max, window, jitter_seconds, ends_after
) -> None:
    subject = parse(*times, "Europe/Berlin", anchor=ANCHOR)
    scheduled_for = subject.after(start)
    assert scheduled_for is not None
    now = scheduled_for + late
    ends_at = None if ends_after is None else start + ends_after
    decided = decide(
        subject,
        scheduled_for,
        now,
        catch_up=catch_up,
        catch_up_max=catch_up_max,
        catch_up_window=window,
        jitter_seconds=jitter_seconds,
        ends_at=ends_at,
    )

    def due(at: datetime) -> datetime:
        return due_at(subject, at, jitter_seconds=jitter_seconds, key="a schedule")

    every, at = [], scheduled_for
    while at <= now and (ends_at is None or at <= ends_at):
        if due(at) <= now:
            every.append(at)
        at = subject.after(at)

    def lateness(at: datetime) -> timedelta:
        return now - due(at)

    newest_first = every[::-1]
    period = subject.after(newest_first[0]) - newest_first[0] if every else None
    wanted = list(takewhile(lambda at: lateness(at) <= ON_TIME, newest_first))
    if catch_up == "skip":
        grace = min(period, SKIP_GRACE) if every else None
        late_ones = list(takewhile(lambda at: lateness(at) <= grace, newest_first))
    elif catch_up == "latest":
        newest = min(period, LATEST_WITHIN) if every else None
        late_ones = [at for at in newest_first[:1] if lateness(at) <= newest]
    elif catch_up == "all":
        late_ones = newest_first[:catch_up_max]
    else:
        late_ones = list(takewhile(lambda at: lateness(at) <= window, newest_first))
    expected = max(wanted, late_ones, key=len)[::-1]

    assert nominal(decided) == expected
    assert [fire.due_at for fire in decided.fires] == [due(at) for at in expected]
    missed = every[: len(every) - len(expected)]
    assert sum(span.count for span in decided.skipped) == len(missed)
    if missed:
        assert (decided.skipped[0].first, decided.skipped[-1].last) == (missed[0], missed[-1])
    following = subject.after(every[-1]) if every else scheduled_for
    if ends_at is not None and following > ends_at:
        following = None
    assert decided.next_scheduled_for == following
    if following is not None:
        assert decided.next_fire_at == due(following)
        assert decided.next_fire_at > now or not every


# -- jitter ----------------------------------------------------------------------------------------


@given(st.text(), st.datetimes(timezones=st.just(UTC)), st.integers(0, 100_000))
def test_jitter_stays_within_its_bounds_and_repeats(key: str, at: datetime, seconds: int) -> None:
    drawn = jitter(key, at, seconds)
    assert timedelta(0) <= drawn <= timedelta(seconds=seconds)
    assert jitter(key, at, seconds) == drawn


def test_jitter_spreads_evenly_and_differs_by_schedule_and_time() -> None:
    drawn = [jitter(f"schedule {n}", NOON, 100).total_seconds() for n in range(2000)]
    assert len(set(drawn)) == 2000
    for low in range(0, 100, 10):
        assert 120 < sum(low <= seconds < low + 10 for seconds in drawn) < 290
    assert jitter("a", NOON, 100) != jitter("a", NOON + DAY, 100)


def test_jitter_is_the_same_in_every_release() -> None:
    # Beats of two releases may run side by side.
    assert jitter("a schedule", NOON, 3600) == timedelta(seconds=3494, microseconds=261089)


def test_jitter_never_reaches_the_next_fire() -> None:
    times = cadence("10s")
    for n in range(200):
        at = NOON + n * 10 * SECOND
        assert at <= due_at(times, at, jitter_seconds=3600, key="k") < at + 10 * SECOND


def test_a_fire_waits_for_its_jitter() -> None:
    due = due_at(cadence("1h"), NOON, jitter_seconds=600, key="a schedule")
    assert due > NOON
    early = decide(cadence("1h"), NOON, due - timedelta(microseconds=1), jitter_seconds=600)
    assert early == Plan((), (), NOON, due)
    ripe = decide(cadence("1h"), NOON, due, jitter_seconds=600)
    assert ripe.fires == (Fire(NOON, due),)


# -- the first fire --------------------------------------------------------------------------------


def begin(times: Cadence, now: datetime, **bounds):
    values = {"starts_at": None, "ends_at": None, "jitter_seconds": 0, "key": "a schedule"}
    return first(times, now=now, **(values | bounds))


def test_the_first_fire_lies_ahead() -> None:
    times = cadence("0 * * * *", "cron")
    assert begin(times, NOON + SECOND) == (NOON + HOUR, NOON + HOUR)
    assert begin(times, NOON) == (NOON + HOUR, NOON + HOUR)


def test_the_first_fire_may_be_the_start_itself() -> None:
    times = cadence("0 * * * *", "cron")
    assert begin(times, NOON - DAY, starts_at=NOON) == (NOON, NOON)
    assert begin(times, NOON + SECOND, starts_at=NOON) == (NOON + HOUR, NOON + HOUR)


def test_a_schedule_that_is_over_has_no_first_fire() -> None:
    times = cadence("0 * * * *", "cron")
    assert begin(times, NOON, ends_at=NOON + HOUR) == (NOON + HOUR, NOON + HOUR)
    assert begin(times, NOON, ends_at=NOON + MINUTE) is None


@pytest.mark.parametrize(
    ("late", "planned"), [(-DAY, True), (SECOND, True), (59 * MINUTE, True), (61 * MINUTE, False)]
)
def test_once_planned_a_little_late_still_fires(late: timedelta, planned: bool) -> None:
    found = begin(cadence("2026-05-01T12:00", "once"), NOON + late)
    assert found == ((NOON, NOON) if planned else None)


def test_the_first_fire_has_its_jitter() -> None:
    scheduled_for, due = begin(cadence("1h"), NOON, jitter_seconds=600)
    assert scheduled_for == NOON + HOUR
    assert due == scheduled_for + policies.jitter("a schedule", scheduled_for, 600)
