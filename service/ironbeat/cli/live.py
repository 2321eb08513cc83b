"""The live screen at its edges: a terminal, a clock, and looks taken beside the keys."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from rich.console import Console
from rich.live import Live

from ironbeat.cli.drawing import draw, lay_out
from ironbeat.cli.looks import Look, Question, take
from ironbeat.cli.screen import State, View, press
from ironbeat.cli.terminal import ENDING, Terminal, follow_terminal, has_keyboard


def live_screen(state: State, interval: float, count: int | None) -> None:
    """Show the screen until a key or a signal ends it, or after ``count`` looks.

    A signal other than Ctrl-C ends the process as if unhandled, once the terminal is back.
    """
    follow_terminal()
    keyboard = has_keyboard()
    with Terminal(keyboard) as terminal:
        console = Console(highlight=False)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            ended_by = _Screen(terminal, live, keyboard, interval, count).run(state)
    if ended_by not in (None, signal.SIGINT):
        signal.signal(ended_by, signal.SIG_DFL)
        signal.raise_signal(ended_by)


class _Reader:
    """Takes looks in a thread of its own, one at a time, so that keys never wait for a server."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._future: Future[Look] | None = None

    @property
    def busy(self) -> bool:
        """Whether a look is being taken, or was and has not been fetched."""
        return self._future is not None

    def ask(self, question: Question) -> None:
        """Begin to look."""
        future: Future[Look] = Future()
        self._future = future

        def read() -> None:
            try:
                future.set_result(take(question))
            except BaseException as error:
                future.set_exception(error)
            self._wake()

        # A daemon: a server that does not answer keeps nobody from leaving.
        threading.Thread(target=read, name="look", daemon=True).start()

    def answer(self) -> Look | None:
        """The look, once; ``None`` while there is none. Raises what taking it raised."""
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        return future.result()


class _Screen:
    """The live screen: waits, lets keys change its state, looks when it is time, and draws."""

    def __init__(
        self, terminal: Terminal, live: Live, keyboard: bool, interval: float, count: int | None
    ) -> None:
        self._terminal, self._live, self._keyboard = terminal, live, keyboard
        self._interval, self._left = interval, count
        self._reader = _Reader(terminal.wake)
        self._look: Look | None = None
        self._asked: Question | None = None
        self._words: tuple[str, ...] | None = None
        self._due = time.monotonic()

    def run(self, state: State) -> int | None:
        """Go on until a key, ``count`` or a signal ends it; returns the signal's number."""
        shown: tuple[State, Look | None] | None = None
        while True:
            self._ask(state)
            if shown != (state, self._look):
                self._draw(state)
                shown = state, self._look
            if self._left == 0:
                return None
            happened = self._terminal.wait(self._pause(state))
            for key in happened.keys:
                state = press(state, key, self._view(state))
            ended_by = next((each for each in happened.signals if each in ENDING), None)
            if state.ended or ended_by is not None:
                return ended_by
            if signal.SIGTSTP in happened.signals:
                self._stop()
            if happened.signals:
                # Stopped or resized: what was drawn is gone, or of another size.
                shown = None
            self._take(state)

    def _ask(self, state: State) -> None:
        """Begin a look when one is due, or when what is shown needs another one."""
        if self._reader.busy:
            return
        question = state.place.question
        if state.typing is not None and self._asked is not None:
            # What is typed filters what is there; the ledger is asked for the whole of it.
            question = self._asked
        # Back from what was opened, a paused screen shows what it showed before.
        known = question.target is None and question.words == self._words
        due = not state.paused and time.monotonic() >= self._due
        if due:
            self._due = max(self._due + self._interval, time.monotonic())
        if due or (question != self._asked and not (state.paused and known)):
            self._asked = question
            self._reader.ask(question)

    def _take(self, state: State) -> None:
        found = self._reader.answer()
        if found is None:
            return
        if state.paused and self._look is not None:
            # The suite stays as it was; only what was opened or looked for since is new.
            found = replace(found, seen=self._look.seen)
        if found.question.target is None:
            self._words = found.question.words
        elif self._look is not None:
            found = replace(found, runs=self._look.runs)
        self._look = found
        if self._left is not None:
            self._left -= 1

    def _pause(self, state: State) -> float | None:
        if self._reader.busy or state.paused:
            return None
        return max(0.0, self._due - time.monotonic())

    def _view(self, state: State) -> View:
        return lay_out(self._live.console, state, self._look)[0]

    def _draw(self, state: State) -> None:
        lines = draw(self._live.console, state, self._look, self._keyboard)
        self._live.update(lines, refresh=True)

    def _stop(self) -> None:
        """Ctrl-Z: the shell gets its terminal back until `fg`."""
        console = self._live.console
        console.set_alt_screen(False)
        console.show_cursor(True)
        with self._terminal.given_back():
            signal.raise_signal(signal.SIGSTOP)
        console.set_alt_screen(True)
        console.show_cursor(False)
