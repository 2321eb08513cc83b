"""The terminal that a live screen stands on: its size, its keys, its signals, and its way back."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ironbeat.cli.keys import Decoder

# After this long a lone ESC is the Escape key; the rest of a sequence comes with it or right after.
ESCAPE_SECONDS = 0.05
# To the main screen, with its cursor.
LEAVE = b"\x1b[?1049l\x1b[?25h"
# They end the screen in order; unhandled they would leave the terminal as the screen had it.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
HANDLED = (*ENDING, signal.SIGTSTP, signal.SIGWINCH)


def follow_terminal() -> None:
    """Let the terminal alone say how large it is, where it says so.

    ``LINES`` and ``COLUMNS`` outrank it for Rich and :mod:`shutil`, and what a parent exported when
    it began says nothing of this terminal: GNU readline, for one, exports 24 and 80 from a program
    without a terminal as soon as Python's ``readline`` is imported, to every process below it.
    """
    try:
        size = os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ else 1)
    except (OSError, ValueError):
        return
    if size.columns and size.lines:
        os.environ.pop("LINES", None)
        os.environ.pop("COLUMNS", None)


def has_keyboard() -> bool:
    """Whether standard input is a terminal that sends this process its keys."""
    if not sys.stdin or not sys.stdin.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        return False
    try:
        # A job in the background would be stopped for touching the terminal's modes.
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        # Nobody's controlling terminal, so there are no jobs on it either.
        return True


@dataclass(frozen=True, slots=True)
class Happened:
    """What ended a wait: keys, signals, or nothing but :meth:`Terminal.wake` or the time-out."""

    keys: tuple[str, ...] = ()
    signals: tuple[int, ...] = ()


class Terminal:
    """Reads keys one by one and signals in order, and puts the terminal back when left.

    Used in the main thread as a context. Without a ``keyboard`` it brings signals alone. Ctrl-C
    stays a signal, so that it works whatever the screen is doing.
    """

    def __init__(self, keyboard: bool) -> None:
        self._input = sys.stdin.fileno() if keyboard else None
        self._decoder = Decoder()
        self._modes: list[Any] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Terminal:
        """Take the terminal over."""
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        self._wakeup = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in HANDLED:
            # The handler has nothing to do: the number arrives through the pipe.
            self._handlers[number] = signal.signal(number, lambda *_: None)
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the terminal back as it was."""
        self._give_back()
        if error is not None:
            # Whoever drew may have failed to leave the screen, for the reason he failed to draw.
            with contextlib.suppress(OSError):
                os.write(sys.__stdout__.fileno() if sys.__stdout__ else 1, LEAVE)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read_end)
        os.close(self._write_end)

    def wake(self) -> None:
        """End the wait, from any thread."""
        # Full: it ends anyway. Closed: nobody waits any more.
        with contextlib.suppress(OSError):
            os.write(self._write_end, b"\0")

    def wait(self, seconds: float | None) -> Happened:
        """Wait for keys, signals or :meth:`wake`, at most ``seconds`` (``None``: for ever)."""
        if self._decoder.undecided:
            seconds = ESCAPE_SECONDS if seconds is None else min(seconds, ESCAPE_SECONDS)
        sources = [self._read_end, *([] if self._input is None else [self._input])]
        ready, _, _ = select.select(sources, [], [], seconds)
        signals: list[int] = []
        keys: list[str] = []
        if self._read_end in ready:
            signals += [number for number in os.read(self._read_end, 4096) if number]
        if self._input in ready and self._input is not None:
            data = self._typed(self._input)
            keys += self._decoder.feed(data)
            signals += [] if data else [signal.SIGHUP]
        elif self._decoder.undecided:
            keys += self._decoder.settle()
        return Happened(tuple(keys), tuple(signals))

    @contextmanager
    def given_back(self) -> Iterator[None]:
        """The terminal as it was before, for the length of the block."""
        self._give_back()
        yield
        self._take()

    @staticmethod
    def _typed(descriptor: int) -> bytes:
        try:
            return os.read(descriptor, 4096)
        except OSError:
            # A terminal that hung up answers so.
            return b""

    def _take(self) -> None:
        if self._input is None:
            return
        self._modes = termios.tcgetattr(self._input)
        modes = termios.tcgetattr(self._input)
        # Without echo and lines; IEXTEN would keep Ctrl-V and Ctrl-O for itself.
        modes[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._input, termios.TCSANOW, modes)

    def _give_back(self) -> None:
        if self._input is not None and self._modes:
            # Not after the output has drained: nobody may be reading it any more.
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._input, termios.TCSANOW, self._modes)
