"""What each kind of cadence accepts, when it fires, and what it says of itself."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbeat.schedules.cadence import Cadence, CadenceError, interval, parse

ANCHOR = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def wall_times(expression: str, zone: str, start: str, count: int) -> list[str]:
    """The next fires after ``start``, as the zone's clock shows them, with its offset."""
    cadence = parse("cron", expression, zone, anchor=ANCHOR)
    instant, shown = at(start, zone), []
    for _ in range(count):
        found = cadence.after(instant)
        if found is None:
            break
        shown.append(found.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M %z"))
        instant = found
    return shown


# -- clocks that change ------------------------------------------------------------------------

CHANGES = [
    # A time of day that is leapt over fires right after the leap, once.
    (
        "30 2 * * *",
        "Europe/Berlin",
        "2026-03-28 00:00",
        ["03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"],
    ),
    (
        "15,45 2 * * *",
        "Europe/Berlin",
        "2026-03-28 12:00",
        ["03-29 03:00 +0200", "03-30 02:15 +0200"],
    ),
    # ... and not twice where another fire stands at that moment.
    (
        "0 2,3 * * *",
        "Europe/Berlin",
        "2026-03-28 12:00",
        ["03-29 03:00 +0200", "03-30 02:00 +0200"],
    ),
    # A time that comes twice fires at its first coming.
    (
        "30 2 * * *",
        "Europe/Berlin",
        "2026-10-24 12:00",
        ["10-25 02:30 +0200", "10-26 02:30 +0100"],
    ),
    # Jobs of every hour and every few minutes run at every real occurrence.
    (
        "0 * * * *",
        "Europe/Berlin",
        "2026-10-25 00:30",
        ["10-25 01:00 +0200", "10-25 02:00 +0200", "10-25 02:00 +0100", "10-25 03:00 +0100"],
    ),
    ("0 * * * *", "Europe/Berlin", "2026-03-29 00:30", ["03-29 01:00 +0100", "03-29 03:00 +0200"]),
    (
        "*/30 2 * * *",
        "Europe/Berlin",
        "2026-10-25 00:00",
        ["10-25 02:00 +0200", "10-25 02:30 +0200", "10-25 02:00 +0100", "10-25 02:30 +0100"],
    ),
    ("*/30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["03-30 02:00 +0200"]),
    # Southern hemisphere.
    ("30 2 * * *", "Australia/Sydney", "2026-10-03 12:00", ["10-04 03:00 +1100"]),
    (
        "30 2 * * *",
        "Australia/Sydney",
        "2026-04-04 12:00",
        ["04-05 02:30 +1100", "04-06 02:30 +1000"],
    ),
    # Half an hour: 02:00 to 02:30 is leapt over, 01:30 to 02:00 comes twice.
    ("10 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00", ["10-04 02:30 +1100"]),
    (
        "45 1 * * *",
        "Australia/Lord_Howe",
        "2026-04-04 12:00",
        ["04-05 01:45 +1100", "04-06 01:45 +1030"],
    ),
    (
        "*/15 1 * * *",
        "Australia/Lord_Howe",
        "2026-04-05 01:20",
        ["04-05 01:30 +1100", "04-05 01:45 +1100", "04-05 01:30 +1030", "04-05 01:45 +1030"],
    ),
    # Midnight itself is leapt over.
    ("0 0 * * *", "America/Havana", "2026-03-07 12:00", ["03-08 01:00 -0400", "03-09 00:00 -0400"]),
    ("0 0 * * *", "Asia/Tehran", "2022-03-21 12:00", ["03-22 01:00 +0430", "03-23 00:00 +0430"]),
    # Summer time abolished: nothing happens at the old date.
    ("30 0 * * *", "Asia/Tehran", "2023-03-21 12:00", ["03-22 00:30 +0330"]),
    # A whole day is leapt over.
    (
        "30 4 * * *",
        "Pacific/Apia",
        "2011-12-29 12:00",
        ["12-31 00:00 +1400", "12-31 04:30 +1400"],
    ),
    # Six fields follow the wall clock to the letter.
    ("0 30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["03-30 02:30 +0200"]),
    (
        "0 30 2 * * *",
        "Europe/Berlin",
        "2026-10-24 12:00",
        ["10-25 02:30 +0200", "10-25 02:30 +0100", "10-26 02:30 +0100"],
    ),
]


@pytest.mark.parametrize(("expression", "zone", "start", "expected"), CHANGES)
def test_clocks_that_change(expression: str, zone: str, start: str, expected: list[str]) -> None:
    assert wall_times(expression, zone, start, len(expected)) == expected


def test_asked_within_a_repeated_hour_a_daily_job_has_fired() -> None:
    cadence = parse("cron", "30 2 * * *", "Europe/Berlin", anchor=ANCHOR)
    second_coming = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 +0100
    assert cadence.after(second_coming) == at("2026-10-26 02:30", "Europe/Berlin")
    assert cadence.before(second_coming) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


# -- cron ----------------------------------------------------------------------------------------

GRAMMAR = [
    ("@daily", ["05-02 00:00", "05-03 00:00"]),
    ("@midnight", ["05-02 00:00"]),
    ("@hourly", ["05-01 13:00", "05-01 14:00"]),
    ("@weekly", ["05-03 00:00"]),
    ("@monthly", ["06-01 00:00"]),
    ("@yearly", ["01-01 00:00"]),
    ("@Annually", ["01-01 00:00"]),
    ("5/20 * * * *", ["05-01 12:05", "05-01 12:25", "05-01 12:45", "05-01 13:05"]),
    ("0 9-17/4 * * mon-fri", ["05-01 13:00", "05-01 17:00", "05-04 09:00"]),
    ("0 0 * feb,aug *", ["08-01 00:00"]),
    ("0 0 L * *", ["05-31 00:00", "06-30 00:00"]),
    ("0 0 LW * *", ["05-29 00:00", "06-30 00:00"]),
    ("0 0 * * mon#2", ["05-11 00:00", "06-08 00:00"]),
    ("0 0 * * fril", ["05-29 00:00", "06-26 00:00"]),
    ("0 0 * * 5L", ["05-29 00:00"]),
    ("0 0 ? * 7", ["05-03 00:00"]),
    ("0 0 15 * ?", ["05-15 00:00"]),
    ("0 0 * * sat-sun", ["05-02 00:00", "05-03 00:00", "05-09 00:00"]),
    # Either day field, and, asked for with '&', both.
    ("0 0 13 * fri", ["05-08 00:00", "05-13 00:00", "05-15 00:00"]),
    ("0 0 13 * &fri", ["11-13 00:00"]),
    ("0 0 1-7 * &mon", ["05-04 00:00", "06-01 00:00"]),
]


@pytest.mark.parametrize(("expression", "expected"), GRAMMAR)
def test_grammar(expression: str, expected: list[str]) -> None:
    shown = wall_times(expression, "UTC", "2026-05-01 12:00", len(expected))
    assert [text.removesuffix(" +0000") for text in shown] == expected


def test_seconds_come_first() -> None:
    cadence = parse("cron", "*/20 30 12 * * *", "UTC", anchor=ANCHOR)
    assert cadence.after(at("2026-05-01 12:30:10")) == at("2026-05-01 12:30:20")


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * * *", "7 fields"),
        ("60 * * * *", "minute 60 is out of range"),
        ("* 24 * * *", "hour 24 is out of range"),
        ("* * 0 * *", "day of month 0 is out of range"),
        ("* * * 13 *", "month 13 is out of range"),
        ("* * * * 8", "day of week 8 is out of range"),
        ("61 * * * * *", "second 61 is out of range"),
        ("a * * * *", "minute 'A' is not a number"),
        ("* * * foo *", "or JAN-DEC"),
        ("*/0 * * * *", "no usable step"),
        ("*/ * * * *", "no usable step"),
        ("1,,2 * * * *", "is not a number"),
        ("30-10 * * * *", "write 30-59,0-10"),
        ("* * * * mon#6", "from 1 to 5"),
        ("@fortnightly", "write one of @hourly"),
        ("0 0 30 2 *", "never comes true"),
        ("0 0 31 4,6,9,11 *", "never comes true"),
        ("0 0 8-14 * &mon#1", "never comes true"),
        ("٣ * * * *", "is not a number"),
    ],
)
def test_bad_cron_says_what_is_wrong(expression: str, complaint: str) -> None:
    with pytest.raises(CadenceError, match=complaint):
        parse("cron", expression, "UTC", anchor=ANCHOR)


def test_rare_days_are_found() -> None:
    cadence = parse("cron", "0 0 29 2 &mon", "UTC", anchor=ANCHOR)
    assert cadence.after(at("2026-01-01 00:00")) == at("2044-02-29 00:00")
    # 2100 is no leap year: from 2072 to 2112.
    assert cadence.after(at("2072-03-01 00:00")) == at("2112-02-29 00:00")
    assert cadence.before(at("2112-02-28 00:00")) == at("2072-02-29 00:00")


def test_the_end_of_the_calendar_is_never_again() -> None:
    cadence = parse("cron", "0 0 1 1 *", "Asia/Taipei", anchor=ANCHOR)
    assert cadence.after(datetime(9999, 6, 1, tzinfo=UTC)) is None
    assert cadence.before(datetime(1, 1, 2, tzinfo=UTC)) is None


# -- interval --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1d", 86_400),
        ("2w", 1_209_600),
        ("1.5s", 1.5),
        ("0.5m", 30),
        ("1500ms", 1.5),
        ("90", 90),
        ("1209600.0", 1_209_600),
    ],
)
def test_intervals(text: str, seconds: float) -> None:
    assert interval(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not understood"),
        ("soon", "not understood"),
        ("5 parsecs", "not understood"),
        ("1e6s", "not understood"),
        ("-5m", "negative"),
        ("0s", "shortest is 1s"),
        ("250ms", "shortest is 1s"),
        ("200w" * 40, "hundred years"),
    ],
)
def test_bad_intervals_say_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(CadenceError, match=complaint):
        parse("interval", text, "UTC", anchor=ANCHOR)


def test_an_interval_never_drifts_from_its_anchor() -> None:
    anchor = datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)
    cadence = parse("interval", "7s", "UTC", anchor=anchor)
    assert cadence.after(anchor - timedelta(days=9)) == anchor
    assert cadence.after(anchor) == anchor + timedelta(seconds=7)
    assert cadence.before(anchor - timedelta(microseconds=1)) is None
    late = anchor + timedelta(seconds=7 * 1_000_000 + 3)
    assert cadence.after(late) == anchor + timedelta(seconds=7 * 1_000_001)
    assert cadence.before(late) == anchor + timedelta(seconds=7 * 1_000_000)
    assert cadence.count(anchor - timedelta(days=1), late) == 1_000_001


# -- solar -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sunset", "names no place"),
        ("sunset@25", "names no place"),
        ("sunset@25,x", "names no place"),
        ("moonrise@25,121", "unknown solar event 'moonrise'"),
        ("sunset@91,0", "latitude 91 is out of range"),
        ("sunset@0,181", "longitude 181 is out of range"),
        ("sunset@90,0", "never happens at latitude 90"),
        ("dusk_astronomical@-90,0", "never happens"),
    ],
)
def test_bad_solar_says_what_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(CadenceError, match=complaint):
        parse("solar", text, "UTC", anchor=ANCHOR)


# What Celery's own solar schedule answers, by the library ephem: the next event after a time.
ALMANAC = [
    ("sunrise@25.03,121.56", "2026-03-20 12:00", "2026-03-20 21:57:10"),
    ("sunset@25.03,121.56", "2026-06-21 00:00", "2026-06-21 10:46:21"),
    ("solar_noon@25.03,121.56", "2026-01-01 00:00", "2026-01-01 03:57:10"),
    ("dawn_civil@52.52,13.4", "2026-10-25 00:00", "2026-10-25 05:14:23"),
    ("dusk_nautical@-33.87,151.21", "2026-12-21 00:00", "2026-12-21 10:10:28"),
    ("dawn_astronomical@40.71,-74.01", "2026-06-21 00:00", "2026-06-21 07:18:33"),
    ("dusk_astronomical@40.71,-74.01", "2026-11-01 00:00", "2026-11-01 23:24:50"),
    ("dawn_nautical@-36.85,174.76", "2026-04-05 00:00", "2026-04-05 17:42:19"),
    ("dusk_civil@-13.83,-171.77", "2026-07-01 00:00", "2026-07-01 05:33:39"),
    ("sunset@1.35,172.98", "2026-09-23 00:00", "2026-09-23 06:23:50"),
    ("sunrise@51.88,-176.66", "2026-12-21 00:00", "2026-12-21 19:52:00"),
    ("sunrise@69.65,18.96", "2026-12-01 00:00", "2027-01-15 10:34:38"),
    ("dusk_civil@69.65,18.96", "2027-01-01 00:00", "2027-01-01 13:08:14"),
    ("dusk_astronomical@60.17,24.94", "2026-05-01 00:00", "2026-08-22 21:50:22"),
    ("sunrise@-77.85,166.67", "2026-05-01 00:00", "2026-08-19 00:20:26"),
]


@pytest.mark.parametrize(("expression", "start", "expected"), ALMANAC)
def test_the_sun_is_where_celery_says(expression: str, start: str, expected: str) -> None:
    cadence = parse("solar", expression, "UTC", anchor=ANCHOR)
    found = cadence.after(at(start))
    assert found is not None
    assert abs(found - at(expected)) < timedelta(seconds=60)


def test_days_without_the_event_are_passed_over() -> None:
    cadence = parse("solar", "sunset@69.65,18.96", "Europe/Oslo", anchor=ANCHOR)
    summer = at("2026-06-21 12:00")
    last, following = cadence.before(summer), cadence.after(summer)
    assert last is not None
    assert following is not None
    assert (last.month, following.month) == (5, 7)


@given(
    longitude=st.floats(-180, 180), start=st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1))
)
def test_the_sun_sets_once_a_day_on_both_sides_of_the_date_line(
    longitude: float, start: datetime
) -> None:
    cadence = parse("solar", f"sunset@-21.2,{longitude:.3f}", "UTC", anchor=ANCHOR)
    fires = list(itertools.islice(walk(cadence, start.replace(tzinfo=UTC)), 10))
    for one, other in itertools.pairwise(fires):
        assert abs(other - one - timedelta(days=1)) < timedelta(minutes=3)


# -- once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-05-01T09:30", "Asia/Taipei", "2026-05-01 01:30"),
        ("2026-05-01 09:30:15", "UTC", "2026-05-01 09:30:15"),
        ("2026-05-01T09:30+02:00", "Asia/Taipei", "2026-05-01 07:30"),
        ("2026-05-01T09:30Z", "Asia/Taipei", "2026-05-01 09:30"),
        ("2026-05-01", "Asia/Taipei", "2026-04-30 16:00"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29 01:00"),
        ("2026-10-25T02:30", "Europe/Berlin", "2026-10-25 00:30"),
        ("2011-12-30T10:00", "Pacific/Apia", "2011-12-30 10:00"),
    ],
)
def test_once(text: str, zone: str, expected: str) -> None:
    cadence = parse("once", text, zone, anchor=ANCHOR)
    moment = at(expected)
    assert cadence.after(moment - timedelta(seconds=1)) == moment
    assert cadence.after(moment) is None
    assert cadence.before(moment) == moment
    assert cadence.before(moment - timedelta(seconds=1)) is None
    assert cadence.period(moment) == timedelta.max


@pytest.mark.parametrize(
    "text", ["tomorrow", "2026-02-30T10:00", "12:30", "10000-01-01", "0001-01-01"]
)
def test_bad_once_says_what_is_wrong(text: str) -> None:
    with pytest.raises(CadenceError, match=r"ISO 8601|write a year"):
        parse("once", text, "UTC", anchor=ANCHOR)


# -- all kinds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cron", "interval", "solar", "once"])
@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Asia/", "CET+1"])
def test_an_unknown_zone_is_refused(kind: str, zone: str) -> None:
    with pytest.raises(CadenceError, match="unknown time zone"):
        parse(kind, "* * * * *" if kind == "cron" else "30s", zone, anchor=ANCHOR)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(CadenceError, match="write one of cron, interval, solar, once"):
        parse("lunar", "full", "UTC", anchor=ANCHOR)


def test_naive_instants_are_refused() -> None:
    with pytest.raises(TypeError):
        parse("cron", "* * * * *", "UTC", anchor=ANCHOR).after(datetime(2026, 1, 1))


SAMPLES = [
    ("cron", "*/5 * * * *", "Europe/Berlin"),
    ("cron", "30 2 * * *", "America/New_York"),
    ("cron", "0 0 13 * fri", "Australia/Lord_Howe"),
    ("cron", "0 0 29 2 *", "Asia/Taipei"),
    ("cron", "*/10 * * * * *", "Asia/Tehran"),
    ("interval", "30s", "UTC"),
    ("interval", "1h30m", "Asia/Taipei"),
    ("solar", "sunset@25.03,121.56", "Asia/Taipei"),
    ("solar", "sunrise@69.65,18.96", "Europe/Oslo"),
    ("solar", "solar_noon@-13.8,-171.8", "Pacific/Apia"),
]


@pytest.mark.parametrize(("kind", "expression", "zone"), SAMPLES)
@given(instant=st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)))
def test_before_and_after_agree(kind: str, expression: str, zone: str, instant: datetime) -> None:
    cadence = parse(kind, expression, zone, anchor=datetime(1980, 1, 1, tzinfo=UTC))
    following, last = cadence.after(instant), cadence.before(instant)
    assert following is not None
    assert last is not None
    assert last <= instant < following
    assert cadence.after(last) == following
    assert cadence.before(following) == following
    assert cadence.before(following - timedelta(microseconds=1)) == last
    assert cadence.count(instant, following) == 1
    assert cadence.count(last, instant) == 0
    assert cadence.period(instant) == following - last
    assert following.tzinfo is UTC


@pytest.mark.parametrize(("kind", "expression", "zone"), SAMPLES)
def test_counting_is_walking(kind: str, expression: str, zone: str) -> None:
    cadence = parse(kind, expression, zone, anchor=datetime(1980, 1, 1, tzinfo=UTC))
    start = at("2026-02-27 12:34:56")
    fires = list(itertools.islice(walk(cadence, start), 400))
    for index in (0, 1, 7, 150, 399):
        assert cadence.count(start, fires[index]) == index + 1


def walk(cadence: Cadence, instant: datetime):
    following = cadence.after(instant)
    while following is not None:
        yield following
        following = cadence.after(following)


def test_parsing_again_returns_the_same() -> None:
    first = parse("cron", "*/5 * * * *", "UTC", anchor=ANCHOR)
    assert parse("cron", "*/5 * * * *", "UTC", anchor=ANCHOR + timedelta(days=1)) is first


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expression", "words"),
    [
        ("cron", "* * * * *", "every minute"),
        ("cron", "*/15 * * * *", "every 15 minutes"),
        ("cron", "0 * * * *", "every hour"),
        ("cron", "30 * * * *", "every hour at minute 30"),
        ("cron", "5,10 * * * *", "every hour at minutes 5 and 10"),
        ("cron", "30 3 * * *", "every day at 03:30"),
        ("cron", "@daily", "every day at 00:00"),
        ("cron", "30 */6 * * *", "every 6 hours at minute 30"),
        ("cron", "0 */2 * * *", "every 2 hours"),
        ("cron", "0 9,17 * * *", "every day at 09:00 and 17:00"),
        ("cron", "0 9 * * mon-fri", "at 09:00 on Monday to Friday"),
        ("cron", "0 9 * * sat,sun", "at 09:00 on Saturday and Sunday"),
        ("cron", "*/15 9-17 * * 1-5", "every 15 minutes from 09:00 to 17:59 on Monday to Friday"),
        ("cron", "0 0 1 1 *", "at 00:00 on day 1 of January"),
        ("cron", "0 0 1,15 * *", "at 00:00 on days 1 and 15 of the month"),
        ("cron", "0 0 L * *", "at 00:00 on the last day of the month"),
        ("cron", "0 0 * * mon#2", "at 00:00 on the second Monday of the month"),
        ("cron", "0 0 * * 5L", "at 00:00 on the last Friday of the month"),
        ("cron", "0 0 13 * fri", "at 00:00 on day 13 of the month or Friday"),
        ("cron", "0 0 1-7 * &mon", "at 00:00 on Monday if that is days 1 to 7 of the month"),
        ("cron", "0 6 * jun-aug *", "every day at 06:00 in June to August"),
        ("cron", "* * * * * *", "every second"),
        ("cron", "*/10 * * * * *", "every 10 seconds"),
        ("cron", "15 30 3 * * *", "every day at 03:30:15"),
        (
            "cron",
            "0,30 */15 * * * *",
            "every 30 seconds in minutes 0, 15, 30 and 45 of each hour",
        ),
        ("cron", "5,10 * * * * *", "every minute, at seconds 5 and 10 of each"),
        ("cron", "0 0 * jul mon#1", "at 00:00 on the first Monday of July"),
        ("cron", "*/5 8,12 * * *", "every 5 minutes in hours 8 and 12 of the day"),
        ("cron", "*/20 8-9 * * *", "every day at 08:00, 08:20, 08:40, 09:00, 09:20 and 09:40"),
        ("interval", "30s", "every 30 seconds"),
        ("interval", "60", "every minute"),
        ("interval", "1h30m", "every 1 hour 30 minutes"),
        ("interval", "1d", "every day"),
        ("interval", "1.5s", "every 1.5 seconds"),
        ("solar", "sunset@25.03,-121.56", "at sunset, 25.03° N 121.56° W"),
        ("solar", "dawn_civil@-25,0", "at civil dawn, 25° S 0° E"),
        ("solar", "solar_noon@0,0", "at solar noon, 0° N 0° E"),
        ("once", "2026-05-01T09:30", "once, on 2026-05-01 09:30:00 (UTC)"),
    ],
)
def test_words(kind: str, expression: str, words: str) -> None:
    assert parse(kind, expression, "UTC", anchor=ANCHOR).describe() == words
