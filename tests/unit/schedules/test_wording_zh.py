"""Schedules in Chinese words."""

from __future__ import annotations

import pytest

from ironbeat.schedules.wording_zh import describe


@pytest.mark.parametrize(
    ("kind", "expression", "words"),
    [
        ("cron", "30 3 * * *", "每天 03:30"),
        ("cron", "0 * * * *", "每小時第 0 分"),
        ("cron", "*/5 * * * *", "每 5 分鐘"),
        ("cron", "30 */6 * * *", "每 6 小時的第 30 分"),
        ("cron", "0 9 * * 1-5", "每週一至五 09:00"),
        ("cron", "0 9,18 * * *", "每天 09:00、18:00"),
        ("cron", "0 0 1 * *", "每月 1 日 00:00"),
        ("cron", "0 0 1 1 *", "1 月 1 日 00:00"),
        ("cron", "0 12 * * 5#2", "每月第 2 個週五 12:00"),
        ("cron", "* 8-17 * * *", "每分鐘（08:00 至 17:59）"),
        ("cron", "0 8 L * *", "每月最後一天 08:00"),
        ("interval", "30s", "每 30 秒"),
        ("interval", "1h", "每小時"),
        ("interval", "1h30m", "每 1 小時 30 分鐘"),
        ("solar", "sunset@25.03,121.56", "每天日落（北緯 25.03°，東經 121.56°）"),
        ("once", "2026-05-01T09:30", "一次，2026-05-01 09:30（Asia/Taipei）"),
    ],
)
def test_in_traditional_characters(kind, expression, words):
    assert describe(kind, expression, "Asia/Taipei") == words


def test_in_simplified_characters():
    said = describe("cron", "0 9 * * 1-5", "UTC", simplified=True)
    assert said == "每周一至五 09:00"
    assert describe("interval", "1h30m", "UTC", simplified=True) == "每 1 小时 30 分钟"
