"""Figures as people read them, and tables of them for a terminal or a pipe."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Literal

Tone = Literal["", "good", "warning", "bad", "dim", "title"]

_CODES = {"good": "32", "warning": "33", "bad": "1;31", "dim": "2", "title": "1"}


@dataclass(frozen=True)
class Toned:
    """A text with what its colour should say."""

    text: str
    tone: Tone = ""


Cell = Toned | str | int | float | None


def duration(seconds: float | None) -> str:
    """A length of time in the two units that suit it: ``35 ms``, ``3 min 5 s``, ``2 d 4 h``."""
    if seconds is None:
        return "–"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts: list[str] = []
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {name}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def megabytes(value: float | None) -> str:
    """A size in MB."""
    return "–" if value is None else f"{value:,.0f} MB"


def moment(text: str | None, zone: tzinfo | None = None) -> str:
    """An instant of the suite's (ISO 8601) in ``zone``, to the second."""
    if not text:
        return "–"
    return datetime.fromisoformat(text).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def colours() -> bool:
    """Whether standard output is a terminal that may be coloured."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def painted(cell: Cell, colour: bool) -> str:
    """A cell's text in its colour; nothing is a dash."""
    text = plain(cell)
    code = _CODES.get(cell.tone) if isinstance(cell, Toned) else None
    return f"\033[{code}m{text}\033[0m" if colour and code else text


def plain(cell: Cell) -> str:
    """A cell's text; nothing is a dash."""
    value = cell.text if isinstance(cell, Toned) else cell
    if value is None or value == "":
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Table:
    """Rows under columns; a column whose name begins with ``>`` is aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""

    def lines(self, *, colour: bool = False) -> list[str]:
        """The table as lines of text, under its title if it has one."""
        names = [name.removeprefix(">") for name in self.columns]
        right = [name.startswith(">") for name in self.columns]
        widths = [
            max([width(name), *(width(plain(row[i])) for row in self.rows)])
            for i, name in enumerate(names)
        ]
        head: list[Cell] = [Toned(name or " ", "title") for name in names]
        lines = [painted(Toned(self.title, "title"), colour)] if self.title else []
        for row in (head, *self.rows):
            cells = []
            for cell, wide, to_right in zip(row, widths, right, strict=True):
                room = " " * (wide - width(plain(cell)))
                text = painted(cell, colour)
                cells.append(room + text if to_right else text + room)
            lines.append("  ".join(cells).rstrip())
        return lines


def width(text: str) -> int:
    """How many columns a text takes: a Chinese character takes two."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )
