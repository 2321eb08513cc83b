"""Figures of several systems over several rounds, as a table for people or JSON for programs."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.programs import Trouble

Figures = dict[str, Any]

#: Under this key stands how many rounds a system finished, where it was not every one.
FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Column:
    """A figure's key, what it is called, and how many decimals it is shown with."""

    key: str
    title: str
    decimals: int = 0


def medians(rounds: Sequence[Figures]) -> Figures:
    """Each figure's median over the rounds; of texts and truths the last one."""
    found: Figures = {}
    for key in rounds[-1]:
        values = [each[key] for each in rounds if each.get(key) is not None]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if values and len(numbers) == len(values):
            found[key] = statistics.median(numbers)
        else:
            found[key] = values[-1] if values else None
    return found


def median_of_finished(rounds: Sequence[Figures | None]) -> Figures:
    """The medians of the rounds that ended well; of none a row that says so."""
    finished = [figures for figures in rounds if figures is not None]
    found = medians(finished) if finished else {}
    if len(finished) < len(rounds):
        found[FINISHED] = f"{len(finished)} of {len(rounds)} rounds"
    return found


def attempt(name: str, measure: Callable[[], Figures]) -> Figures | None:
    """One round of a system, ``None`` where it did not finish: a peer's failure is its figure.

    Ironbeat's own is an error. Raises :class:`Trouble`.
    """
    try:
        return measure()
    except Trouble as trouble:
        if name == "ironbeat":
            raise
        say(f"{name} did not finish: {trouble}")
        return None


def ratio(
    ours: Sequence[Figures | None], theirs: Sequence[Figures | None], key: str
) -> float | None:
    """The median over the rounds of ``ours / theirs``: each round's pair ran side by side."""
    pairs = [(a[key], b[key]) for a, b in zip(ours, theirs, strict=False) if a and b]
    found = [a / b for a, b in pairs if a is not None and b]
    return statistics.median(found) if found else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which ``share`` (0 to 1) of ``values`` lie; ``None`` of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(
    title: str,
    results: Mapping[str, Figures],
    columns: Sequence[Column],
    *,
    as_json: bool,
    notes: Sequence[str] = (),
) -> None:
    """Print the figures: a table, or one JSON object with one object a system."""
    if as_json:
        json.dump({name: _rounded(figures) for name, figures in results.items()}, sys.stdout)
        print()
        return
    if any(FINISHED in figures for figures in results.values()):
        columns = (*columns, Column(FINISHED, "finished"))
    table = Table(title=title, title_justify="left")
    table.add_column("system")
    for column in columns:
        numeric = not any(isinstance(f.get(column.key), str) for f in results.values())
        table.add_column(column.title, justify="right" if numeric else "left")
    for name, figures in results.items():
        table.add_row(name, *(_cell(figures.get(column.key), column) for column in columns))
    console = Console(width=None if sys.stdout.isatty() else 170)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)


def say(text: str) -> None:
    """Tell on standard error what is being done: standard output is for the figures."""
    print(text, file=sys.stderr, flush=True)


def _cell(value: Any, column: Column) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.{column.decimals}f}"


def _rounded(figures: Figures) -> Figures:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
