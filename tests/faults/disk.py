"""Disks that are full."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.scenario import Scenario
from tests.faults.suite import Suite, wait_until

FULL_SECONDS = 12.0
SPOOL_KB = 8


def cannot_mount() -> str | None:
    """Why no file system of its own can be had."""
    return None if os.geteuid() == 0 and shutil.which("mount") else "mounting a tmpfs takes root"


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """Not a byte is left on the file system of ``directory``, until the block ends."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))
    try:
        yield
    finally:
        ballast.unlink()


def host_disk_full(suite: Suite) -> float:
    """PostgreSQL, Redis, the spool and the logs are on one file system, and it is full."""
    with filled(suite.disk):
        time.sleep(FULL_SECONDS)
    back_at = suite.now()
    suite.until_healthy(90)
    wait_until(lambda: suite.begun_since(back_at), 30)
    return suite.now() - back_at


def spool_disk_full(suite: Suite) -> float:
    """PostgreSQL is gone, and what ends meanwhile finds no room in the spool."""
    spool = suite.installation.state_dir / "spool"
    owner = suite.installation.state_dir.stat()
    spool.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SPOOL_KB}k,mode=700", "tmpfs", str(spool)],
        check=True,
    )
    try:
        os.chown(spool, owner.st_uid, owner.st_gid)
        with filled(spool):
            suite.submit("counting.work", 3)
            suite.hold("postgres")
            time.sleep(FULL_SECONDS)
            suite.release("postgres")
            back_at = suite.now()
            suite.until_healthy()
            wait_until(lambda: suite.begun_since(back_at), 30)
            return suite.now() - back_at
    finally:
        subprocess.run(["umount", "--lazy", str(spool)], check=True)


SCENARIOS = {
    "host-disk-full": Scenario(
        "PostgreSQL, Redis, logs", "the file system they are on is full for 12 s", host_disk_full,
        "healthy and working after there is room", lasts=30, alone=True, disk_mb=700,
        lacking=cannot_mount,
    ),
    "spool-disk-full": Scenario(
        "spool", "its file system is full while PostgreSQL is away for 12 s", spool_disk_full,
        "working after PostgreSQL is back", lasts=30, lacking=cannot_mount,
    ),
}  # fmt: skip
