"""The figures of the benchmark ``rq``: its owners' table, bars in the terminal, and a PNG."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.apps.documents_work import NOTHING
from benchmarks.report import Figures

TITLES = {NOTHING: "No-op", "metadata": "A chunk's metadata"}
# What the owners published, of a work that they do not describe.
PUBLISHED: Mapping[str, Figures] = {
    "RQ, published": {
        "per_s": 50,
        "p50_ms": 200,
        "memory_mb": 150,
        "cpu_percent": 15,
        "recovered_s": 30,
    },
    "Celery, published": {
        "per_s": 120,
        "p50_ms": 150,
        "memory_mb": 250,
        "cpu_percent": 25,
        "recovered_s": 10,
    },
}
BAR_CHARACTERS = 40
_COLOURS = ("#1b6ca8", "#0b3d62", "#d98c3f", "#8a4f12", "#999999", "#cccccc")

Kept = Mapping[str, Figures]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the table: its title, and its figure of a column."""

    title: str
    figure: Callable[[str], str]


def show(
    kept: Kept, names: Sequence[str], works: Sequence[str], counts: Sequence[int], *, as_json: bool
) -> None:
    """Print a table and bars for each kind of work, or one JSON object with all figures."""
    if as_json:
        json.dump({"measured": kept, "published": PUBLISHED}, sys.stdout)
        print()
        return
    console = Console(width=None if sys.stdout.isatty() else 150)
    for work in works:
        console.print(_table(kept, names, work, counts))
        for line in _bars(kept, names, work, counts):
            console.print(line, highlight=False)


def _table(kept: Kept, names: Sequence[str], work: str, counts: Sequence[int]) -> Table:
    table = Table(title=f"{TITLES[work]}, two worker processes", title_justify="left")
    table.add_column("")
    columns = [*names, *PUBLISHED]
    for name in columns:
        table.add_column(name, justify="right")
    for line in _lines(kept, work, counts):
        table.add_row(line.title, *(line.figure(name) for name in columns))
    return table


def _lines(kept: Kept, work: str, counts: Sequence[int]) -> list[_Line]:
    most = counts[-1]

    def of(key: str, title: str, decimals: int = 0, count: int = most) -> _Line:
        def figure(name: str) -> str:
            return _number(_found(kept, name, work, count).get(key), decimals)

        return _Line(title, figure)

    def recovery(name: str) -> str:
        found = PUBLISHED.get(name) or kept.get(f"{name} recovery") or {}
        if "waited_s" in found and found.get("recovered_s") is None:
            return f"> {found['waited_s']:.0f}"
        return _number(found.get("recovered_s"), 1)

    return [
        *(of("per_s", f"{count:,} tasks, tasks/s", 1, count) for count in counts),
        of("handed_over_per_s", f"{most:,} tasks handed over, tasks/s"),
        of("p50_ms", "latency p50 ms", 1),
        of("p99_ms", "latency p99 ms", 1),
        of("memory_mb", "memory MB"),
        of("cpu_percent", "CPU of the machine %"),
        of("cpu_ms_per_task", "worker CPU ms/task", 2),
        *([] if work == NOTHING else [of("at_once", "tasks at once")]),
        _Line("kill -9 to running again s", recovery),
        of("lost", "lost"),
        of("doubled", "doubled"),
        of("load", "load of the machine", 1),
    ]


def _found(kept: Kept, name: str, work: str, count: int) -> Figures:
    return PUBLISHED.get(name) or kept.get(f"{name} {work} {count}") or {}


def _number(value: Any, decimals: int) -> str:
    if value is None:
        return "–"
    # A large figure has no use for its fraction.
    return f"{value:,.{0 if value >= 100 else decimals}f}"


def _bars(kept: Kept, names: Sequence[str], work: str, counts: Sequence[int]) -> list[str]:
    """Tasks a second as bars of text, the longest as long as the space."""
    columns = [*names, *PUBLISHED]
    found = {
        (name, count): _found(kept, name, work, count).get("per_s") or 0.0
        for name in columns
        for count in counts
    }
    most = max(found.values(), default=0.0) or 1.0
    width = max(map(len, columns))
    lines = [f"{TITLES[work]}: tasks a second"]
    for count in counts:
        lines.append(f"  {count:,} tasks")
        for name in columns:
            value = found[name, count]
            if not value:
                continue
            bar = "█" * max(1, round(value / most * BAR_CHARACTERS))
            lines.append(f"    {name:<{width}} {bar} {_number(value, 1)}")
    return lines


def draw(
    kept: Kept, names: Sequence[str], works: Sequence[str], counts: Sequence[int], target: Path
) -> None:
    """Draw the figures: a row of panels for each kind of work, the published ones beside them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = (
        ("per_s", f"tasks/s, {counts[-1]:,} tasks"),
        ("p50_ms", "latency, ms"),
        ("memory_mb", "memory, MB"),
        ("cpu_percent", "CPU of the machine, %"),
    )
    columns = [*names, *PUBLISHED]
    recovered = any(f"{name} recovery" in kept for name in names)
    rows = len(works) + int(recovered)
    figure, axes = pyplot.subplots(
        rows, len(panels) + 1, figsize=(19, 3.2 * rows), squeeze=False, layout="constrained"
    )
    for row, work in zip(axes, works, strict=False):
        _draw_counts(row[0], kept, columns, work, counts)
        for place, (key, title) in zip(row[1:], panels, strict=True):
            values = [_found(kept, name, work, counts[-1]).get(key) for name in columns]
            _draw_bars(place, columns, values, f"{TITLES[work]}: {title}")
    if recovered:
        for place in axes[-1][1:]:
            place.set_axis_off()
        times = [
            (PUBLISHED.get(name) or kept.get(f"{name} recovery") or {}).get("recovered_s")
            for name in columns
        ]
        _draw_bars(axes[-1][0], columns, times, "kill -9 to running again, s")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=70)
    pyplot.close(figure)


def _draw_counts(
    place: Any, kept: Kept, columns: Sequence[str], work: str, counts: Sequence[int]
) -> None:
    for name, colour in zip(columns, _COLOURS, strict=False):
        values = [_found(kept, name, work, count).get("per_s") for count in counts]
        style = "--" if name in PUBLISHED else "o-"
        place.plot(counts, values, style, color=colour, label=name)
    place.set_title(f"{TITLES[work]}: tasks/s by number of tasks", fontsize=9)
    place.set_yscale("log")
    place.legend(fontsize=7)


def _draw_bars(place: Any, columns: Sequence[str], values: Sequence[Any], title: str) -> None:
    drawn = place.barh(
        list(columns), [value or 0 for value in values], color=_COLOURS[: len(columns)]
    )
    place.bar_label(drawn, [_number(value, 1) for value in values], fontsize=8, padding=2)
    place.invert_yaxis()
    place.margins(x=0.2)
    place.set_title(title, fontsize=9)
