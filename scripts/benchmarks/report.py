"""Figures of several systems over several rounds, as a table for people or JSON for programs."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

Figures = dict[str, Any]


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


def ratio(ours: Sequence[Figures], theirs: Sequence[Figures], key: str) -> float | None:
    """The median over the rounds of ``ours / theirs``: each round's pair ran side by side."""
    pairs = [(a[key], b[key]) for a, b in zip(ours, theirs, strict=False)]
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
