"""A program's pidfile, held by a lock that dies with its process.

Supervisors and people read the number; whether the program still runs is decided by the lock. A
file left behind by a killed process, even one whose number another process has since been given,
is therefore never in the way of the next start.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ironbeat.cli.failures import CommandError, ExitStatus


@contextmanager
def held(path: Path | None, program: str) -> Iterator[None]:
    """Hold ``path`` as the pidfile of ``program`` while the block runs; ``None`` holds nothing.

    Raises :class:`CommandError` when a live process holds it, or when it cannot be written.
    """
    if path is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A POSIX record lock, not flock: a forked child of the pool must not inherit it.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CommandError(
            f"the pidfile {path} of {program} cannot be written: {error.strerror}",
            "Give --pidfile a place this user may write, or make its directory.",
            ExitStatus.SETTINGS,
        ) from error
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise CommandError(
                f"{program} runs already, as process {holder} ({path})",
                "Stop it first, or give this one a --pidfile of its own.",
                ExitStatus.REFUSED,
            ) from error
        owner = os.getpid()
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{owner}\n".encode())
        try:
            yield
        finally:
            # A forked child that leaves this block must not take its parent's file away.
            if os.getpid() == owner:
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
