"""What a task cannot do, with what to do next and the exit status to end with.

The statuses are those of the command ``ironbeat``, so that a script need not know which it called.
"""

from __future__ import annotations

OK = 0
UNHEALTHY = 1
USAGE = 2
NOT_FOUND = 3
UNREACHABLE = 4
INCOMPLETE = 5
REFUSED = 6
TIMED_OUT = 7


class OpsError(Exception):
    """An expected error: what is wrong, what to do next, and the exit status."""

    def __init__(self, message: str, hint: str = "", status: int = UNHEALTHY):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status


class Unreachable(OpsError):
    """A host cannot be reached, or does not let anybody in; the message says why."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message, hint, UNREACHABLE)
