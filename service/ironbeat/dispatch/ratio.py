"""The share of a workload's tasks that goes to Celery; the rest goes to RQ.

The share stands in the database. Whoever submits reads it again after half a second, so a change is
effective everywhere in under a second. Which side a task takes depends on its key alone: a number
in [0, 1) is made of the key, and Celery has those below the ratio. So the same key goes the same
way while the ratio stays, and raising it moves tasks from RQ to Celery and none back.
"""

from __future__ import annotations

import hashlib
import time

import psycopg

from ironbeat import database, queries

SQL = queries.load("ironbeat.dispatch", "ratio.sql")

REMEMBERED_SECONDS = 0.5


def place(key: str) -> float:
    """Where ``key`` stands in [0, 1), evenly and for ever."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def goes_to_celery(key: str, ratio: float) -> bool:
    """Whether Celery has the task with this key, at this ratio."""
    return place(key) < ratio


def checked(ratio: float) -> float:
    """``ratio`` if it is one. Raises :class:`ValueError`."""
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise ValueError(f"the ratio is a share from 0 to 1, not {ratio!r}")
    return float(ratio)


class StoredRatio:
    """The ratio in the database. ``otherwise`` holds while nobody has set one."""

    def __init__(self, name: str, otherwise: float, url: str | None = None) -> None:
        self._name = f"{name}.celery_ratio"
        self._otherwise = checked(otherwise)
        self._url = url
        self._seen: tuple[float, float] | None = None

    def get(self) -> float:
        """The ratio, read within the last half second.

        While the database is away the last one holds: nothing can be submitted meanwhile anyway.
        """
        if self._seen is None or time.monotonic() - self._seen[0] >= REMEMBERED_SECONDS:
            try:
                self._seen = time.monotonic(), self.read()
            except psycopg.OperationalError:
                if self._seen is None:
                    raise
        return self._seen[1]

    def read(self) -> float:
        """The ratio as it is now."""
        found = self.stored()
        return self._otherwise if found is None else found

    def stored(self) -> float | None:
        """What somebody set, or ``None``."""
        with database.connection(self._url) as connection:
            row = connection.execute(SQL["read"], {"name": self._name}).fetchone()
        return None if row is None else float(row[0])

    def set(self, ratio: float) -> float:
        """Set the ratio for everybody; returns the one before. Raises :class:`ValueError`."""
        wanted = checked(ratio)
        before = self.read()
        with database.connection(self._url) as connection:
            connection.execute(SQL["write"], {"name": self._name, "ratio": wanted})
        self._seen = None
        return before
