"""Programs of another host: a worker or a beat beside the suite's own, which supervisord does not
know. Their way to the stores may lead through :mod:`tests.faults.network`, and their clock may be
wrong.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.faults.suite import ROOT, Suite, wait_until

READY_SECONDS = 90


class Program:
    """A worker or a beat on another host."""

    def __init__(self, suite: Suite, kind: str, name: str, environment: Mapping[str, str]) -> None:
        # What a host's programs keep for themselves lies where those of the suite do not look.
        state = suite.directory / name
        state.mkdir(exist_ok=True)
        self.name = name
        self.log = suite.directory / f"{name}.log"
        arguments = [kind] if kind == "beat" else [kind, "--name", name]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / "ironbeat"), *arguments],
                env={**suite.environment, "IRONBEAT_STATE_DIR": str(state), **environment},
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.process.pid

    def kill(self) -> None:
        """`kill -9` of it and all it has started."""
        os.killpg(self.pid, signal.SIGKILL)

    def suspend(self) -> None:
        """Stop it in its tracks."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.killpg(self.pid, signal.SIGCONT)

    def end(self) -> None:
        """End it, whatever became of it."""
        with suppress(ProcessLookupError):
            self.resume()
            self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait(20)


@contextmanager
def program(
    suite: Suite, kind: str, name: str = "elsewhere", environment: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """A worker or a beat on another host, ready, until the block ends."""
    before = living(suite, kind)
    found = Program(suite, kind, name, environment or {})
    try:
        wait_until(
            lambda: living(suite, kind) > before or found.process.poll() is not None, READY_SECONDS
        )
        if found.process.poll() is not None:
            raise AssertionError(f"{name} has ended:\n{found.log.read_text()[-4000:]}")
        yield found
    finally:
        found.end()


def living(suite: Suite, kind: str) -> int:
    """How many programs of a kind hold a lease."""
    return int(
        suite.rows(
            "SELECT count(*) FROM ironbeat.leases"
            " WHERE kind = %s AND expires_at > clock_timestamp()",
            kind,
        )[0][0]
    )


def children(pid: int) -> list[psutil.Process]:
    """All that a process has started."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []
