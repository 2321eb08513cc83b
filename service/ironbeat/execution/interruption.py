"""What is raised inside a running task to end it.

All but the soft time limit derive from :class:`BaseException`, so that a task's own
``except Exception`` does not swallow them.
"""

from __future__ import annotations


class Interrupted(BaseException):
    """The task shall not go on."""


class Cancelled(Interrupted):
    """Somebody cancelled the task: it ends here."""


class Abandoned(Interrupted):
    """The worker leaves at once: the task returns to its queue, to be run again."""
