"""The programs under measurement: started for real, watched, and stopped by pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

BINARIES = Path(sys.executable).parent
STOP_SECONDS = 20.0


class Trouble(Exception):
    """A measurement could not be made; the message says what was seen."""


class Program:
    """A child process in a process group of its own, with its output in a file."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id, which is also that of its group."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """``kill -9`` the process and all its children."""
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ask the process to end, and make it end."""
        if not self.ended:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        # Children that outlived it.
        if any(True for _ in _members(self.pid)):
            os.killpg(self.pid, signal.SIGKILL)

    def output(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-3000:]


def _members(group: int) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (ProcessLookupError, psutil.Error):
            continue


@contextmanager
def running(
    commands: Iterable[Sequence[str]], environment: Mapping[str, str], folder: Path
) -> Iterator[list[Program]]:
    """Run these programs until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        programs = []
        for number, arguments in enumerate(commands):
            program = Program(arguments, environment, folder / f"program-{number}.log")
            stack.callback(program.stop)
            programs.append(program)
        yield programs


def wait_until(
    found: Callable[[], bool],
    seconds: float,
    what: str,
    programs: Sequence[Program] = (),
    pause: float = 0.005,
) -> None:
    """Wait until ``found`` says so; raises :class:`Trouble` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not found():
        dead = [program for program in programs if program.ended]
        if dead or time.monotonic() > deadline:
            shown = (dead or list(programs))[:1]
            log = f"\n{shown[0].output()}" if shown else ""
            raise Trouble(f"{what}: not within {seconds:.0f} s{log}")
        time.sleep(pause)


@dataclass(frozen=True, slots=True)
class Usage:
    """What some processes have used: CPU seconds so far, and resident megabytes now."""

    cpu: float
    rss_mb: float

    @classmethod
    def of(cls, pids: Iterable[int]) -> Usage:
        """The usage of these processes, their living children, and the children they waited for."""
        cpu = rss = 0.0
        for pid in pids:
            try:
                root = psutil.Process(pid)
                family = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            for process in family:
                try:
                    times = process.cpu_times()
                    cpu += sum((times.user, times.system))
                    cpu += times.children_user + times.children_system
                    rss += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
        return cls(cpu, rss / 2**20)
