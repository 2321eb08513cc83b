from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from ironbeat.cli.failures import CommandError, ExitStatus
from ironbeat.cli.when import instant, span

TAIPEI = ZoneInfo("Asia/Taipei")
NOW = datetime(2026, 3, 10, 4, 30, tzinfo=UTC)  # 12:30 in Taipei


def local(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=TAIPEI)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("03:00", local(2026, 3, 10, 3)),
        ("12:30:01", local(2026, 3, 9, 12, 30, 1)),
        ("23:15", local(2026, 3, 9, 23, 15)),
        ("now", local(2026, 3, 10, 12, 30)),
        ("today", local(2026, 3, 10)),
        ("yesterday 03:00", local(2026, 3, 9, 3)),
        ("2h", local(2026, 3, 10, 10, 30)),
        ("90 m ago", local(2026, 3, 10, 11)),
        ("1.5d", local(2026, 3, 9, 0, 30)),
        ("2026-03-01", local(2026, 3, 1)),
        ("2026-03-01T03:00", local(2026, 3, 1, 3)),
        ("2026-03-01T03:00Z", datetime(2026, 3, 1, 3, tzinfo=UTC)),
    ],
)
def test_the_forms_an_operator_types(text: str, expected: datetime) -> None:
    assert instant(text, now=NOW, zone=TAIPEI) == expected


@pytest.mark.parametrize("text", ["", "3 o'clock", "25:00", "12:60", "yesterday noon", "-2h"])
def test_what_is_no_time_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(CommandError) as refused:
        instant(text, now=NOW, zone=TAIPEI)
    assert refused.value.status is ExitStatus.USAGE
    assert "03:00" in refused.value.hint


def test_a_period_over_midnight_is_the_night_that_has_just_been() -> None:
    assert span("23:00", "01:00", now=NOW, zone=TAIPEI) == (
        local(2026, 3, 9, 23),
        local(2026, 3, 10, 1),
    )


def test_an_open_end_stays_open() -> None:
    assert span("03:00", None, now=NOW, zone=TAIPEI) == (local(2026, 3, 10, 3), None)
    assert span(None, None, now=NOW, zone=TAIPEI) == (None, None)


def test_a_period_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(CommandError, match="before it begins"):
        span("1h", "2h", now=NOW, zone=TAIPEI)


def test_a_clock_time_that_clocks_skip_is_still_an_instant() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    after = datetime(2026, 3, 29, 12, tzinfo=UTC)
    assert instant("02:30", now=after, zone=berlin).astimezone(UTC).hour in (0, 1)
