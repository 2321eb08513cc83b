"""When a worker process has done enough, and how long a task may take.

Pure: values in, values out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Seconds; ``None``: none. At ``soft`` the task is asked to end, at ``hard`` it is ended."""

    soft: float | None = None
    hard: float | None = None

    @classmethod
    def of(cls, own: TimeLimits, default: TimeLimits) -> TimeLimits:
        """A task's own limits, and the worker's where it has none.

        A soft limit that would come after the hard one is of no use, and is left out.
        """
        hard = own.hard or default.hard or None
        soft = own.soft or default.soft or None
        if soft is not None and hard is not None and soft >= hard:
            soft = None
        return cls(soft, hard)


@dataclass(frozen=True, slots=True)
class Recycling:
    """When a process makes room for a fresh one, between two tasks.

    It does not before it is old enough: supervisord counts a process that ends within its
    ``startsecs`` as failed to start, and gives up after a few. ``min_age`` (seconds) must be above
    that. A busy worker runs its number of tasks in a second or less, and starting one takes a
    second, too; so the number counts only after ``min_age_by_count``.
    """

    max_tasks: int | None = None
    max_memory_kb: int | None = None
    min_age: float = 0.0
    min_age_by_count: float = 0.0

    def reason(self, tasks: int, age: float, memory_kb: int) -> str | None:
        """Why a process that ran ``tasks`` should go now, or ``None``."""
        if self.max_memory_kb and memory_kb > self.max_memory_kb and age >= self.min_age:
            return f"{memory_kb // 1024} MB of memory, above {self.max_memory_kb // 1024}"
        if self.max_tasks and tasks >= self.max_tasks and age >= self.min_age_by_count:
            return f"{tasks} tasks"
        return None
