"""Showing what goes on: one line a step, alive on a terminal, quiet in a log."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

# How often a step that lasts says so where there is no terminal.
REMINDER_SECONDS = 10.0


class Progress:
    """Prints steps to ``stream`` with the seconds each took."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._step = ""
        self._started = self._reminded = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[Progress]:
        """One step; what it raises ends it as failed."""
        self._step = name
        self._started = self._reminded = time.monotonic()
        self._transient(name)
        try:
            yield self
        except BaseException:
            self.line(f"✗ {name}")
            raise
        self.line(f"✓ {self._step} ({time.monotonic() - self._started:.1f} s)")

    def done(self, result: str) -> None:
        """What the step came to, shown beside it."""
        self._step = f"{self._step}: {result}"

    def now(self, what: str) -> None:
        """What the step waits for at this moment; call it as often as you like."""
        waited = time.monotonic() - self._started
        text = f"{self._step} … {what} ({waited:.0f} s)"
        if self._terminal:
            self._transient(text)
        elif time.monotonic() - self._reminded >= REMINDER_SECONDS:
            self._reminded = time.monotonic()
            self.line(f"  {text}")

    def note(self, text: str) -> None:
        """Something the user should know."""
        self.line(f"! {text}")

    def line(self, text: str) -> None:
        """A line that stays."""
        self._stream.write(("\r\033[K" if self._terminal else "") + text + "\n")
        self._stream.flush()

    def _transient(self, text: str) -> None:
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            self._stream.write("\r\033[K" + f"· {text}"[: columns - 1])
            self._stream.flush()
