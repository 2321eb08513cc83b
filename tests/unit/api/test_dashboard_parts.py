"""The dashboard's pure parts: languages and figures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from ironbeat.api.dashboard import formats
from ironbeat.api.dashboard.language import Translator, negotiate

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
say = Translator("en")


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        (None, None, "en"),
        (None, "de-DE,de;q=0.9", "en"),
        (None, "zh-TW,zh;q=0.9,en;q=0.8", "zh-TW"),
        (None, "zh-Hant-HK", "zh-TW"),
        (None, "zh-CN", "zh-CN"),
        (None, "zh", "zh-CN"),
        (None, "en;q=0.3, zh-TW;q=0.7", "zh-TW"),
        (None, "zh-TW;q=0, en", "en"),
        (None, "zh-TW;q=x, zh-CN", "zh-CN"),
        ("zh-CN", "en", "zh-CN"),
        ("klingon", "zh-TW", "zh-TW"),
    ],
)
def test_the_language_is_the_chosen_one_or_the_best_that_is_accepted(chosen, accepted, language):
    assert negotiate(chosen, accepted) == language


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "–"),
        (0.0123, "12 ms"),
        (1.0, "1 s"),
        (2.34, "2.3 s"),
        (59.9, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400 * 3 + 3600, "3 d 1 h"),
        (86400 * 3 + 60, "3 d"),
    ],
)
def test_lengths_of_time(seconds, told):
    assert formats.duration(seconds, say) == told


def test_instants():
    zone = ZoneInfo("Asia/Taipei")
    assert formats.ago(NOW - timedelta(seconds=90), NOW, say) == "1 min 30 s ago"
    assert formats.ago(NOW + timedelta(hours=2), NOW, say) == "in 2 h"
    assert formats.ago(NOW, NOW, say) == "just now"
    assert formats.clock(NOW, NOW, zone) == "20:00:00"
    assert formats.clock(NOW - timedelta(days=1), NOW, zone) == "02-28 20:00:00"
    assert formats.stamp(NOW, zone) == "2026-03-01 20:00:00"


def test_drawings_hold_nothing_that_was_not_escaped():
    bad = '"><script>alert(1)</script>'
    for drawn in (
        formats.sparkline([1.0, None, 2.0], bad),
        formats.bars([(bad, 1.0, bad)], bad),
        formats.strip([(bad, None, bad)], bad),
    ):
        assert "<script" not in drawn


def test_a_sparkline_lifts_its_pen_over_a_gap():
    assert formats.sparkline([1.0, 2.0, None, 3.0], "x").count("M") == 2
    assert formats.sparkline([None, None], "x") == ""
