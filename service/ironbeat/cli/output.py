"""How commands print: tables for people, one JSON document for programs."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from ironbeat.cli.failures import remember_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

# A pipe or file has no width; rich would cut tables at 80 columns.
PIPE_WIDTH = 200
# A terminal this wide holds lists of runs with all their columns.
ROOMY_WIDTH = 160


def _remember(ctx: typer.Context, value: bool) -> bool:
    return remember_json(ctx, value)


JsonFlag = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document.", callback=_remember, is_eager=True),
]


def plain(value: Any) -> Any:
    """``value`` as what JSON can say: times in ISO 8601, durations in seconds."""
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Enum):
        return plain(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [plain(item) for item in value]
    if isinstance(value, Path | UUID):
        return str(value)
    return repr(value)


def print_json(value: Any) -> None:
    """Print ``value`` as one JSON document."""
    typer.echo(json.dumps(plain(value), ensure_ascii=False, indent=2))


def console() -> Console:
    """The console for tables on standard output."""
    from ironbeat.cli.consoles import harmless_console

    return harmless_console(None if sys.stdout.isatty() else PIPE_WIDTH)


def show(value: Any, as_json: bool, render: Callable[[], RenderableType]) -> None:
    """Print ``value`` as JSON, or what ``render`` makes of it for people."""
    if as_json:
        print_json(value)
    else:
        console().print(render())


def narrow() -> bool:
    """Whether tables must make do with a terminal that is not wide."""
    return sys.stdout.isatty() and shutil.get_terminal_size().columns < ROOMY_WIDTH


def table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    fold: bool = False,
) -> Table:
    """A table of text, a line for each row, cut where a terminal is too narrow for it.

    A column whose name begins with ``>`` is aligned to the right; one with ``!`` is never cut.
    ``fold`` breaks long values into lines instead of cutting them.
    """
    from rich.table import Table
    from rich.text import Text

    fold = fold or not sys.stdout.isatty()
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        name = column.lstrip(">!")
        whole = "!" in column[: len(column) - len(name)]
        made.add_column(
            name,
            justify="right" if ">" in column[: len(column) - len(name)] else "left",
            no_wrap=whole and not fold,
            overflow="fold" if fold else "ellipsis",
        )
    for row in rows:
        cells = [cell if isinstance(cell, Text) else Text(words(cell)) for cell in row]
        for cell in cells:
            cell.no_wrap = not fold
            cell.overflow = "fold" if fold else "ellipsis"
        made.add_row(*cells)
    return made


def words(value: Any) -> str:
    """``value`` for a table's cell; nothing is a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, timedelta):
        return duration(value.total_seconds())
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def clock(value: datetime | None) -> str:
    """A time for a list: without its date where that is today's, else without its seconds."""
    if value is None:
        return "–"
    local, now = value.astimezone(_zone()), datetime.now(_zone())
    if local.date() == now.date():
        return local.strftime("%H:%M:%S")
    return local.strftime("%m-%d %H:%M" if local.year == now.year else "%Y-%m-%d %H:%M")


def moment(value: datetime | None) -> str:
    """A time in the zone of the settings, to the second."""
    if value is None:
        return "–"
    return value.astimezone(_zone()).strftime("%Y-%m-%d %H:%M:%S")


def _zone() -> Any:
    from zoneinfo import ZoneInfo

    from ironbeat.settings import get_settings

    return ZoneInfo(get_settings().timezone)


def duration(seconds: float | None) -> str:
    """A length of time in units that suit it: ``35 ms``, ``4.2 s``, ``3 min 5 s``, ``2 d 4 h``."""
    if seconds is None:
        return "–"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    for position, (size, name) in enumerate(units[:-1]):
        if whole >= size:
            rest, (smaller, smaller_name) = whole % size, units[position + 1]
            tail = f" {rest // smaller} {smaller_name}" if rest // smaller else ""
            return f"{whole // size} {name}{tail}"
    return f"{whole} s"
