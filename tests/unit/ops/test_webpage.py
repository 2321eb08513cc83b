"""The report as a page: its plots, and that it needs nothing else."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from scripts.ops import plots, webpage
from scripts.ops.words import Table, Toned

SINCE = datetime(2026, 3, 1, 8, tzinfo=UTC)
UNTIL = SINCE + timedelta(hours=1)


def course(*steps: dict[str, Any]) -> list[dict[str, Any]]:
    length = (UNTIL - SINCE) / len(steps)
    empty = {"succeeded": 0, "failed": 0, "other": 0}
    times = dict.fromkeys(("run_mean", "run_p95", "wait_mean", "wait_p95"))
    return [
        {"since": (SINCE + n * length).isoformat(), **empty, **times, **step}
        for n, step in enumerate(steps)
    ]


def drawn(plot: plots.Plot) -> ElementTree.Element:
    return ElementTree.fromstring(plots.svg(plot, UTC))


def bars(element: ElementTree.Element) -> list[tuple[str, float]]:
    """Tone and height of each bar."""
    return [
        (each.get("class", ""), float(each.get("height", "0"))) for each in element.iter("rect")
    ]


def test_bars_are_as_high_as_what_they_count() -> None:
    (plot,) = plots.of_course(course({"succeeded": 50}, {"succeeded": 100}), UNTIL)
    assert plot.title == "Runs that ended in each 30 min"
    (one, low), (other, high) = bars(drawn(plot))
    assert one == other == "good"
    assert high == pytest.approx(2 * low) == plots.HEIGHT - plots.TOP - plots.BOTTOM


def test_one_failure_among_thousands_is_seen() -> None:
    (plot,) = plots.of_course(course({"succeeded": 5000, "failed": 1}), UNTIL)
    tones = dict(bars(drawn(plot)))
    assert tones["bad"] == plots.LEAST_HEIGHT
    title = drawn(plot).find("g/title")
    assert title is not None and title.text == "2026-03-01 08:00:00: succeeded 5,000, failed 1"


def test_a_step_without_a_figure_parts_the_line() -> None:
    steps = [{"run_mean": mean, "run_p95": mean} for mean in (1.0, 2.0, None, 4.0)]
    (plot,) = plots.of_course(course(*steps), UNTIL)
    lines = [each.get("points", "").split() for each in drawn(plot).iter("polyline")]
    assert [len(points) for points in lines] == [2, 2, 2, 2]
    # A figure between two steps without is a dot: a line from a point to itself.
    assert lines[1][0] == lines[1][1]
    low, high = (float(point.split(",")[1]) for point in lines[0])
    assert low > high, "the greater value is further up"


def test_what_has_no_figures_is_not_drawn() -> None:
    assert plots.of_course([], UNTIL) == []
    assert plots.of_course(course({}, {}), UNTIL) == []


@pytest.mark.parametrize(
    ("value", "seconds", "top"),
    [
        (1, False, 1),
        (3, False, 5),
        (1001, False, 2000),
        (0.03, True, 0.05),
        (7, True, 10),
        (45, True, 60),
        (61, True, 120),
        (40_000, True, 40_000),
    ],
)
def test_an_axis_ends_at_a_round_value(value: float, seconds: bool, top: float) -> None:
    assert plots._round_up(value, seconds) == pytest.approx(top)


class Elements(HTMLParser):
    """The names of all elements and attributes, and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_asks_nobody_for_anything_and_escapes_what_it_shows() -> None:
    table = Table(["task", ">runs"], [(Toned("<img src=//evil>", "bad"), 3)], "Tasks & more")
    drawn = plots.of_course(course({"succeeded": 3, "run_mean": 1.0, "run_p95": 2.0}), UNTIL)
    text = webpage.page(["Report", "all"], ["a: <b>down</b>"], drawn, [table], UTC)
    found = Elements()
    found.feed(text)
    assert found.open == []
    assert found.names.isdisjoint({"script", "link", "img", "iframe", "b", "image", "use"})
    assert found.attributes.isdisjoint({"src", "href", "onload", "xlink:href", "action"})
    assert not re.search(r"url\(|@import|https?:", text)
    assert "&lt;img src=//evil&gt;" in text and "Tasks &amp; more" in text
    assert text.count("<svg") == len(drawn) == 2
