"""The terminal that a live screen stands on."""

from __future__ import annotations

import os
import sys


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
