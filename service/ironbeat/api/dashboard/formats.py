"""How figures look on a page: lengths of time, instants, small drawings. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup

Say = Callable[..., str]

_UNITS = ((86400, "{n} d"), (3600, "{n} h"), (60, "{n} min"))


def duration(seconds: float | None, say: Say) -> str:
    """A length of time in at most two units, e.g. ``2 h 5 min``."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return say("{n} ms", n=round(seconds * 1000))
    if seconds < 10:
        return say("{n} s", n=f"{seconds:.1f}".removesuffix(".0"))
    if seconds < 60:
        return say("{n} s", n=int(seconds))
    rest, parts = int(seconds), []
    for size, text in _UNITS:
        number, rest = divmod(rest, size)
        if number:
            parts.append(say(text, n=number))
        elif parts:
            break
        if len(parts) == 2:
            break
    if len(parts) == 1 and seconds < 600 and rest:
        parts.append(say("{n} s", n=rest))
    return " ".join(parts)


def ago(then: datetime | None, now: datetime, say: Say) -> str:
    """How long before or after ``now`` something is, e.g. ``5 min ago``."""
    if then is None:
        return "–"
    seconds = (now - then).total_seconds()
    if abs(seconds) < 1:
        return say("just now")
    if seconds > 0:
        return say("{time} ago", time=duration(seconds, say))
    return say("in {time}", time=duration(-seconds, say))


def clock(then: datetime | None, now: datetime, zone: ZoneInfo) -> str:
    """The local time, with its date where that is not today's."""
    if then is None:
        return "–"
    local, today = then.astimezone(zone), now.astimezone(zone)
    if local.date() == today.date():
        return f"{local:%H:%M:%S}"
    if abs(local - today) < timedelta(days=300):
        return f"{local:%m-%d %H:%M:%S}"
    return f"{local:%Y-%m-%d %H:%M}"


def stamp(then: datetime | None, zone: ZoneInfo) -> str:
    """The whole local time."""
    return "–" if then is None else f"{then.astimezone(zone):%Y-%m-%d %H:%M:%S}"


def figure(value: float | None, unit: str = "", say: Say | None = None) -> str:
    """A measured figure with its unit, with as many digits as mean something."""
    if value is None:
        return "–"
    if unit == "s" and say is not None:
        return duration(value, say)
    digits = 0 if value == int(value) or abs(value) >= 100 else 1
    text = f"{value:,.{digits}f}"
    return f"{text} {unit}" if unit in ("MB",) else f"{text}{unit}"


def pretty(value: Any) -> str:
    """JSON for people."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def sparkline(
    values: Sequence[float | None],
    label: str,
    *,
    width: int = 120,
    height: int = 28,
    bound: float | None = None,
) -> Markup:
    """A line without axes; ``bound`` draws a dashed one across it."""
    known = [value for value in values if value is not None]
    if not known:
        return Markup("")
    top = max([*known, bound or 0.0]) or 1.0
    low = min([0.0, *known])
    span = (top - low) or 1.0
    step = width / max(1, len(values) - 1)

    def y(value: float) -> float:
        return height - 2 - (value - low) / span * (height - 4)

    pieces: list[str] = []
    pen_up = True
    for number, value in enumerate(values):
        if value is None:
            pen_up = True
            continue
        pieces.append(f"{'M' if pen_up else 'L'}{number * step:.1f} {y(value):.1f}")
        pen_up = False
    # A single point is no line; a dot shows that there was one.
    line = "".join(pieces) + ("h.01" if len(known) == 1 else "")
    across = Markup("")
    if bound is not None and low <= bound <= top:
        across = Markup('<path class="bound" d="M0 {}H{}"/>').format(f"{y(bound):.1f}", width)
    return Markup(
        '<svg class="spark" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" '
        'aria-label="{2}" preserveAspectRatio="none">{3}<path class="line" d="{4}"/></svg>'
    ).format(width, height, label, across, line)


_SHAPE = Markup(
    '<rect class="bar {}" x="{}" y="{}" width="5" height="{}" rx="1"><title>{}</title></rect>'
)
_DRAWING = Markup(
    '<svg class="{0}" viewBox="0 0 {1} {2}" width="{1}" height="{2}" role="img" '
    'aria-label="{3}">{4}</svg>'
)

#: State, seconds and title of a run.
Ended = tuple[str, float | None, str]


def bars(outcomes: Iterable[Ended], label: str, *, slots: int = 20) -> Markup:
    """The last runs, oldest left: as tall as they took long, coloured by how they ended."""
    found = list(outcomes)[-slots:]
    if not found:
        return Markup("")
    longest = max((seconds or 0.0 for _, seconds, _ in found), default=0.0) or 1.0
    shapes = []
    for number, (state, seconds, title) in enumerate(found):
        tall = max(3.0, (seconds or 0.0) / longest * 22)
        x = (slots - len(found) + number) * 6
        shapes.append(_SHAPE.format(state, x, f"{24 - tall:.1f}", f"{tall:.1f}", title))
    return _DRAWING.format("bars", slots * 6, 24, label, Markup("").join(shapes))


def strip(outcomes: Iterable[Ended], label: str, *, slots: int = 20) -> Markup:
    """How the last runs ended, oldest left: a square for each."""
    found = list(outcomes)[-slots:]
    if not found:
        return Markup("")
    shapes = [
        _SHAPE.format(state, (slots - len(found) + number) * 6, 3, 12, title)
        for number, (state, _, title) in enumerate(found)
    ]
    return _DRAWING.format("strip", slots * 6, 18, label, Markup("").join(shapes))
