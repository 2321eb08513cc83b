"""A report as one HTML file that needs nothing else: to be sent on, printed, kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import jinja2
from markupsafe import Markup

from ironbeat.watch.course import Step
from ironbeat.watch.report import Report

WIDTH, HEIGHT, LEFT = 760, 150, 44


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ironbeat.watch", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("webpage.html")


def page(found: Report, zone: ZoneInfo, hide: Callable[[str], str]) -> str:
    """The report as a page, its times those of ``zone``; ``hide`` takes secrets out of a text."""
    return _template().render(
        found=found,
        seen=found.status,
        between=found.between,
        zone=zone.key,
        stamp=lambda at: "–" if at is None else f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S}",
        duration=duration,
        figure=figure,
        hide=lambda text: hide((text or "").partition("\n")[0]),
        runs=runs_plot(found.course, zone),
        times=times_plot(found.course, zone),
    )


def duration(seconds: float | None) -> str:
    """A length of time, with as many digits as mean something."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def figure(value: float | None, unit: str = "") -> str:
    """A measured figure with its unit."""
    if value is None:
        return "–"
    if unit == "s":
        return duration(value)
    return f"{value:,.0f}{unit and ' ' + unit}" if value == int(value) else f"{value:,.1f} {unit}"


def runs_plot(course: Sequence[Step], zone: ZoneInfo) -> Markup:
    """How many runs ended in each step, by how they ended, as stacked bars."""
    if not course:
        return Markup("")
    top = max((each.succeeded + each.failed + each.other for each in course), default=0) or 1
    wide = (WIDTH - LEFT) / len(course)
    shapes = []
    for number, each in enumerate(course):
        low = 0.0
        for kind in ("succeeded", "other", "failed"):
            count = getattr(each, kind)
            tall = count / top * HEIGHT
            if count:
                told = f"{each.since.astimezone(zone):%m-%d %H:%M}: {count} {kind}"
                shapes.append(
                    Markup(
                        '<rect class="{}" x="{}" y="{}" width="{}" height="{}">'
                        "<title>{}</title></rect>"
                    ).format(
                        kind,
                        f"{LEFT + number * wide:.1f}",
                        f"{HEIGHT - low - tall:.1f}",
                        f"{max(1.0, wide - 1):.1f}",
                        f"{tall:.1f}",
                        told,
                    )
                )
            low += tall
    return _frame(course, zone, f"{top:,}", Markup("").join(shapes), "runs that ended")


def times_plot(course: Sequence[Step], zone: ZoneInfo) -> Markup:
    """How long runs took and waited in each step (95 % of them less), as lines."""
    if not course:
        return Markup("")
    values = [v for each in course for v in (each.run_p95, each.wait_p95) if v is not None]
    top = max(values, default=0.0) or 1.0
    lines = [
        Markup('<path class="{}" d="{}"/>').format(name, _line(course, f"{name}_p95", top))
        for name in ("run", "wait")
    ]
    return _frame(course, zone, duration(top), Markup("").join(lines), "seconds")


def _line(course: Sequence[Step], name: str, top: float) -> str:
    wide = (WIDTH - LEFT) / len(course)
    pieces, pen_up = [], True
    for number, each in enumerate(course):
        value = getattr(each, name)
        if value is None:
            pen_up = True
            continue
        x, y = LEFT + (number + 0.5) * wide, HEIGHT - value / top * HEIGHT
        pieces.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
        if pen_up:
            # A single step between two gaps is no line; a dot shows it.
            pieces.append("h.01")
        pen_up = False
    return "".join(pieces)


def _frame(course: Sequence[Step], zone: ZoneInfo, top: str, inside: Markup, label: str) -> Markup:
    def at(number: int) -> str:
        when: datetime = course[number].since.astimezone(zone)
        return f"{when:%m-%d %H:%M}"

    ticks = [(0, "start"), (len(course) // 2, "middle"), (len(course) - 1, "end")]
    marks: list[Any] = [
        Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
            f"{LEFT + number / max(1, len(course) - 1) * (WIDTH - LEFT):.0f}",
            HEIGHT + 16,
            anchor,
            at(number),
        )
        for number, anchor in ticks
    ]
    return Markup(
        '<svg viewBox="0 -8 {0} {1}" role="img" aria-label="{2}"><text x="{3}" y="6" '
        'text-anchor="end">{4}</text><text x="{3}" y="{5}" text-anchor="end">0</text>'
        '<line x1="{6}" x2="{0}" y1="{5}" y2="{5}"/>{7}{8}</svg>'
    ).format(WIDTH, HEIGHT + 30, label, LEFT - 6, top, HEIGHT, LEFT, inside, Markup("").join(marks))
