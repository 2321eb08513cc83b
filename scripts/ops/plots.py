"""Figures over a period as SVG that stands inside a page: no script, no file beside it. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from html import escape
from typing import Any

from scripts.ops.words import Tone, duration

WIDTH, HEIGHT = 720, 170
LEFT, RIGHT, TOP, BOTTOM = 64, 8, 10, 24
# Something bad that is rare must still be seen beside much that is good.
LEAST_HEIGHT = 2.0
TIMES_SHOWN = 6
# Round lengths of time, for the top of an axis.
_ROUND_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000)


@dataclass(frozen=True)
class Series:
    """Values of one kind, a step each; ``None`` where there is none."""

    name: str
    tone: Tone
    values: Sequence[float | None]


@dataclass(frozen=True)
class Plot:
    """Series over the same steps: bars that stand on one another (``stacked``), or lines.

    ``starts`` are the beginnings of the steps, ``until`` is the end of the last one. ``seconds``
    says that the values are times.
    """

    title: str
    starts: Sequence[datetime]
    until: datetime
    series: Sequence[Series]
    stacked: bool = False
    seconds: bool = False

    @property
    def top(self) -> float:
        """The highest value that is drawn; 0 when there is nothing to draw."""
        columns = zip(*(each.values for each in self.series), strict=True)
        if self.stacked:
            return max((sum(value or 0 for value in column) for column in columns), default=0)
        return max((value or 0 for column in columns for value in column), default=0)

    def said(self, value: float) -> str:
        """A value with its unit."""
        return duration(value) if self.seconds else f"{value:,g}"


def of_course(course: Sequence[Mapping[str, Any]], until: datetime) -> list[Plot]:
    """What is drawn of the steps of a report's period; plots that would be empty are left out."""
    if not course:
        return []
    starts = [datetime.fromisoformat(step["since"]) for step in course]

    def series(name: str, tone: Tone, field: str) -> Series:
        return Series(name, tone, [step[field] for step in course])

    def times(field: str) -> list[Series]:
        return [
            series("95 % at most", "warning", f"{field}_p95"),
            series("mean", "good", f"{field}_mean"),
        ]

    ended = [
        series("succeeded", "good", "succeeded"),
        series("cancelled, skipped, expired", "dim", "other"),
        series("failed", "bad", "failed"),
    ]
    length = duration((until - starts[0]).total_seconds() / len(starts))
    found = [
        Plot(f"Runs that ended in each {length}", starts, until, ended, stacked=True),
        Plot("How long they took", starts, until, times("run"), seconds=True),
        Plot("How long they waited for a worker", starts, until, times("wait"), seconds=True),
    ]
    return [plot for plot in found if plot.top > 0]


def svg(plot: Plot, zone: tzinfo) -> str:
    """The plot as an ``<svg>`` element, coloured by the page's classes of tones."""
    top = _round_up(plot.top, plot.seconds)
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = wide / len(plot.starts)

    def y(value: float) -> float:
        return TOP + high * (1 - value / top)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_aloud(plot))}">',
        *_grid(plot, top, y),
        *_times(plot, zone, wide),
        *(_bars(plot, zone, step, high / top) if plot.stacked else _lines(plot, zone, step, y)),
        "</svg>",
    ]
    return "".join(parts)


def _grid(plot: Plot, top: float, y: Callable[[float], float]) -> list[str]:
    parts = []
    for value in (0.0, top / 2, top):
        at = f"{y(value):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        said = plot.said(value) if value else "0"
        parts.append(f'<text x="{LEFT - 6}" y="{at}" dy=".35em" class="left">{said}</text>')
    return parts


def _times(plot: Plot, zone: tzinfo, wide: float) -> list[str]:
    span = plot.until - plot.starts[0]
    parts = []
    for number in range(TIMES_SHOWN):
        at = (plot.starts[0] + span * number / (TIMES_SHOWN - 1)).astimezone(zone)
        x = LEFT + wide * number / (TIMES_SHOWN - 1)
        side = "start" if number == 0 else "end" if number == TIMES_SHOWN - 1 else "middle"
        style = f'text-anchor="{side}"'
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" {style}>{_clock(at, span)}</text>')
    return parts


def _bars(plot: Plot, zone: tzinfo, step: float, scale: float) -> list[str]:
    parts = []
    for number, column in enumerate(zip(*(each.values for each in plot.series), strict=True)):
        if not any(column):
            continue
        ground = float(HEIGHT - BOTTOM)
        parts.append(f"<g><title>{escape(_told(plot, number, zone))}</title>")
        for each, value in zip(plot.series, column, strict=True):
            if not value:
                continue
            tall = max(value * scale, LEAST_HEIGHT)
            ground -= tall
            place = f'x="{LEFT + number * step:.1f}" y="{ground:.1f}"'
            size = f'width="{max(step - 1, 0.5):.1f}" height="{tall:.1f}"'
            parts.append(f'<rect class="{each.tone}" {place} {size}/>')
        parts.append("</g>")
    return parts


def _lines(plot: Plot, zone: tzinfo, step: float, y: Callable[[float], float]) -> list[str]:
    parts = []
    for each in plot.series:
        # A step without a value parts the line; one between two such is a dot.
        for first, values in _stretches(each.values):
            points = [
                f"{LEFT + (first + n + 0.5) * step:.1f},{y(value):.1f}"
                for n, value in enumerate(values)
            ]
            line = " ".join(points if len(points) > 1 else points * 2)
            parts.append(f'<polyline class="{each.tone}" points="{line}"/>')
    for number, column in enumerate(zip(*(each.values for each in plot.series), strict=True)):
        if any(value is not None for value in column):
            told = f"<title>{escape(_told(plot, number, zone))}</title>"
            place = f'x="{LEFT + number * step:.1f}" y="{TOP}"'
            size = f'width="{step:.1f}" height="{HEIGHT - TOP - BOTTOM}"'
            parts.append(f'<rect class="touch" {place} {size}>{told}</rect>')
    return parts


def _stretches(values: Sequence[float | None]) -> list[tuple[int, list[float]]]:
    """The values without gaps: where each stretch begins, and its values."""
    found: list[tuple[int, list[float]]] = []
    for number, value in enumerate(values):
        if value is None:
            continue
        if found and found[-1][0] + len(found[-1][1]) == number:
            found[-1][1].append(value)
        else:
            found.append((number, [value]))
    return found


def _told(plot: Plot, number: int, zone: tzinfo) -> str:
    """A step in words, for whoever points at it."""
    values = ((each.name, each.values[number]) for each in plot.series)
    said = ", ".join(f"{name} {plot.said(value)}" for name, value in values if value)
    at = plot.starts[number].astimezone(zone)
    return f"{at:%Y-%m-%d %H:%M:%S}: {said or 'nothing'}"


def _aloud(plot: Plot) -> str:
    """The plot in words, for whoever does not see it."""
    return f"{plot.title}: at most {plot.said(plot.top)}"


def _clock(at: datetime, span: timedelta) -> str:
    if span > timedelta(days=3):
        return f"{at:%m-%d}"
    if span > timedelta(hours=20):
        return f"{at:%m-%d %H:%M}"
    return f"{at:%H:%M}" if span > timedelta(minutes=10) else f"{at:%H:%M:%S}"


def _round_up(value: float, seconds: bool) -> float:
    """The next round value that is not below this one."""
    if seconds and value > 1:
        return next((each for each in _ROUND_SECONDS if each >= value), math.ceil(value))
    size = 10.0 ** math.floor(math.log10(value))
    return next(each * size for each in (1, 2, 5, 10) if each * size >= value * (1 - 1e-9))
