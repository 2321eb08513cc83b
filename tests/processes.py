"""Programs under test: started for real, waited for, and stopped by pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Neighbours are not asked: a test has one worker, and each question costs a second.
QUIET = ("--without-mingle", "--without-gossip")

TESTS = Path(__file__).parent
ROOT = TESTS.parent


class Program:
    """A child process with its output in a file."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        self.arguments = arguments
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                arguments,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=os.environ | environment,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(timeout=30)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(timeout=15)


@contextmanager
def program(*arguments: str, log: Path, **environment: str) -> Iterator[Program]:
    """Run ``python -m …`` until the block ends."""
    started = Program([sys.executable, "-m", *arguments], log, environment)
    try:
        yield started
    finally:
        started.stop()


@contextmanager
def worker(
    application: str,
    log: Path,
    *options: str,
    name: str = "w",
    path: Path = TESTS / "integration" / "apps",
    **environment: str,
) -> Iterator[Program]:
    """A Celery worker of an application in ``path``, ready to consume."""
    paths = os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])
    arguments = ("-A", application, "worker", "-n", f"{name}@%h", "-l", "INFO", *QUIET, *options)
    with program("celery", *arguments, log=log, PYTHONPATH=paths, **environment) as started:
        wait_for(lambda: " ready." in started.output(), seconds=60, program=started)
        yield started


def wait_for(
    found: Callable[[], Any], *, seconds: float = 20, program: Program | None = None
) -> Any:
    """Wait until ``found`` returns something true, and return it; fail with the program's log."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        ended = program is not None and program.process.poll() is not None
        if ended or time.monotonic() > deadline:
            log = program.output()[-4000:] if program is not None else ""
            raise AssertionError(f"not within {seconds} s (ended: {ended})\n{log}")
        time.sleep(0.05)
    return value
