"""Log lines of several hosts: merged by time, and as people read them. Pure."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any

from scripts.ops import words
from scripts.ops.words import Toned

_TONES: dict[str, words.Tone] = {
    "debug": "dim",
    "warning": "warning",
    "error": "bad",
    "critical": "bad",
}
# Fields with a place of their own, or that the line's source tells already.
_PLACED = ("timestamp", "level", "event", "exception", "logger", "pid", "program", "worker")


@dataclass(frozen=True, order=True)
class Line:
    """One line. ``at`` is in seconds since the epoch; ``source`` is the process, as ``beat``."""

    at: float
    host: str
    source: str
    text: str = field(compare=False)

    def fields(self) -> dict[str, Any] | None:
        """What a line of the suite's says; ``None`` for any other line."""
        try:
            found = json.loads(self.text)
        except ValueError:
            return None
        return found if isinstance(found, dict) and "event" in found else None

    def as_json(self) -> dict[str, Any]:
        """The line as ``--json`` prints it."""
        found = self.fields()
        place = {
            "time": datetime.fromtimestamp(self.at, UTC).isoformat(),
            "host": self.host,
            "process": self.source,
        }
        return place | ({"fields": found} if found is not None else {"text": self.text})


def merged(hosts: Iterable[Iterable[Line]]) -> Iterator[Line]:
    """All lines in the order of time; those of each host are in that order already."""
    return heapq.merge(*hosts)


class Gathered:
    """Lines that arrive while they are being written, put in order for as long as one can wait.

    A line is let go when it is ``patience`` seconds old: by then its elders of other hosts have
    arrived.
    """

    def __init__(self, patience: float = 1.0) -> None:
        self._patience = patience
        self._waiting: list[tuple[Line, float]] = []

    def put(self, line: Line, now: float) -> None:
        """A line has arrived."""
        self._waiting.append((line, now))

    def take(self, now: float) -> list[Line]:
        """The lines that have waited long enough, in order, and all that are older than they."""
        ripe = [line for line, arrived in self._waiting if now - arrived >= self._patience]
        if not ripe:
            return []
        last = max(ripe)
        found = sorted(line for line, _ in self._waiting if line <= last)
        self._waiting = [each for each in self._waiting if each[0] > last]
        return found

    def rest(self) -> list[Line]:
        """All lines that still wait, in order."""
        found = sorted(line for line, _ in self._waiting)
        self._waiting = []
        return found


def readable(line: Line, zone: tzinfo, *, colour: bool = False) -> list[str]:
    """A line for people: time, host and process, level, what happened, and its fields."""
    when = datetime.fromtimestamp(line.at, zone).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    head = f"{words.painted(Toned(when, 'dim'), colour)} {line.host}/{line.source}"
    found = line.fields()
    if found is None:
        return [f"{head} {line.text}"]
    level = str(found.get("level", ""))
    tone = _TONES.get(level, "")
    rest = " ".join(
        f"{name}={_value(value)}"
        for name, value in found.items()
        # A run's id is its task's id; once is enough.
        if name not in _PLACED and not (name == "run_id" and value == found.get("task_id"))
    )
    said = f"{words.painted(Toned(level.upper(), tone), colour)} {found['event']}"
    tail = f"  {words.painted(Toned(rest, 'dim'), colour)}" if rest else ""
    return [f"{head} {said}{tail}", *(f"    {each}" for each in _exception(found))]


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _exception(found: dict[str, Any]) -> list[str]:
    text = found.get("exception")
    return text.splitlines() if isinstance(text, str) else []
