"""Figures and tables as people read them."""

from __future__ import annotations

from datetime import UTC

import pytest

from scripts.ops.errand import options
from scripts.ops.failures import OpsError
from scripts.ops.webpage import page
from scripts.ops.words import Table, Toned, duration, width


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "–"),
        (0, "0 ms"),
        (0.0351, "35 ms"),
        (4.24, "4.2 s"),
        (59.4, "59 s"),
        (185, "3 min 5 s"),
        (3600, "1 h"),
        (7260, "2 h 1 min"),
        (187_200, "2 d 4 h"),
        (86_400, "1 d"),
        (-2, "-2.0 s"),
    ],
)
def test_durations_have_the_units_that_suit_them(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected


def test_a_table_stays_in_line_with_wide_characters_and_colours() -> None:
    rows = [("佇列", Toned("ok", "good"), 5), ("default", None, 12)]
    table = Table(["queue", "state", ">waiting"], rows)
    plain = table.lines()
    assert plain == [
        "queue    state  waiting",
        "佇列     ok           5",
        "default  –           12",
    ]
    assert {width(line) for line in plain} == {23}
    assert "\033[32mok\033[0m" in table.lines(colour=True)[1]


def test_a_page_shows_texts_and_never_their_markup() -> None:
    table = Table(["why", ">count"], [(Toned("<script>", "bad"), 1)], "Failed & gone")
    html = page(["A & B", "well"], ["worker1: <down>"], [], [table], UTC)
    assert "<script>" not in html
    assert '<td class="bad">&lt;script&gt;</td><td class="right">1</td>' in html
    assert "<h2>Failed &amp; gone</h2>" in html
    assert "<li>worker1: &lt;down&gt;</li>" in html


def test_pairs_become_options() -> None:
    assert options(["cron=0 3 * * *", "catch_up=all", "queue="]) == [
        "--cron",
        "0 3 * * *",
        "--catch-up",
        "all",
        "--queue",
        "",
    ]
    for wrong in ("cron", "=x", "--yes=1; rm"):
        with pytest.raises(OpsError):
            options([wrong])
