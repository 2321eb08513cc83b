"""A terminal for a test: a program on a pseudo terminal of its own, its keys and its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path

# So long a busy machine may take for one screen.
PATIENCE_SECONDS = 60.0
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9])")
HOME = "\x1b[H"


def _controlled() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Screen:
    """``command`` in a session whose terminal is a new one, ``lines`` by ``columns``.

    The test holds the terminal open too, so that its modes can be read after the program's end.
    """

    def __init__(
        self, command: Sequence[str], lines: int = 40, columns: int = 120, **environment: str
    ) -> None:
        self._parent, self.terminal = pty.openpty()
        self.resize(lines, columns)
        self.modes = termios.tcgetattr(self.terminal)
        self.program = subprocess.Popen(
            command,
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            env={**os.environ, "TERM": "xterm", **environment},
            start_new_session=True,
            preexec_fn=_controlled,
        )
        self.shown = ""

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        os.close(self._parent)
        os.close(self.terminal)

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._parent, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self._parent, keys.encode())

    @property
    def frame(self) -> str:
        """The screen that was drawn last, without colours."""
        text = _ESCAPES.sub("", self.shown.rpartition(HOME)[2])
        return "\n".join(line.rstrip() for line in text.splitlines())

    def until(self, *wanted: str, without: Sequence[str] = ()) -> str:
        """Wait for a screen that shows all of these and none of those."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < ends:
            self._read(0.2)
            # A screen is whole once nothing follows.
            while self._read(0.05):
                pass
            frame = self.frame
            if all(each in frame for each in wanted) and not any(e in frame for e in without):
                return frame
            if self.program.poll() is not None and not self._read(0.0):
                break
        raise AssertionError(f"no screen with {wanted} without {without}, but:\n{self.frame}")

    def ended(self) -> int:
        """Wait for the program's end; its return code, as :mod:`subprocess` gives it."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while self.program.poll() is None and time.monotonic() < ends:
            self._read(0.1)
        code = self.program.wait(0)
        while self._read(0.0):
            pass
        return code

    def stopped(self) -> None:
        """Wait until the program is stopped, as by Ctrl-Z."""
        status = Path(f"/proc/{self.program.pid}/stat")
        ends = time.monotonic() + PATIENCE_SECONDS
        while status.read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < ends, self.frame
            self._read(0.1)
        while self._read(0.0):
            pass

    def signal(self, number: signal.Signals) -> None:
        self.program.send_signal(number)

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was: its modes, its main screen, its cursor."""
        return (
            termios.tcgetattr(self.terminal) == self.modes
            and self.shown.rfind("\x1b[?1049l") > self.shown.rfind("\x1b[?1049h")
            and self.shown.rfind("\x1b[?25h") > self.shown.rfind("\x1b[?25l")
        )

    def _read(self, seconds: float) -> bool:
        if not select.select([self._parent], [], [], seconds)[0]:
            return False
        self.shown += os.read(self._parent, 65536).decode(errors="replace")
        return True
