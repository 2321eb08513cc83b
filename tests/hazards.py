"""Workers of the application ``hazards``, each started again when it dies, as supervisord would."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import Run, RunNotFound
from tests.processes import QUIET, TESTS, Program

APPS = TESTS / "integration" / "apps"
POOLS = {
    "ironbeat": ("--pool", "custom", "--concurrency", "1"),
    "threads": ("--pool", "threads", "--concurrency", "4"),
    "prefork": ("--pool", "prefork", "--concurrency", "2"),
}


def application(monkeypatch: pytest.MonkeyPatch, traces: Path) -> ModuleType:
    """The application in this process, which submits."""
    monkeypatch.setenv("TRACES", str(traces))
    monkeypatch.setenv("CELERY_CUSTOM_WORKER_POOL", "ironbeat.execution.pool:TaskPool")
    monkeypatch.syspath_prepend(str(APPS))
    sys.modules.pop("hazards_app", None)
    spec = importlib.util.spec_from_file_location("hazards", APPS / "hazards.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


class Crew:
    """Workers that are started again whenever they end, and the traces of their tasks."""

    def __init__(self, folder: Path, traces: Path, pool: str, **environment: str) -> None:
        self.folder = folder
        self.traces_file = traces
        self.pool = pool
        self.environment = environment
        self.programs: dict[str, Program] = {}
        self.starts: Counter[str] = Counter()
        self._ending = False
        self._threads: list[threading.Thread] = []

    def start(self, name: str) -> None:
        thread = threading.Thread(target=self._keep, args=(name,), daemon=True)
        self._threads.append(thread)
        thread.start()
        self.wait(lambda: " ready." in self.output(name))

    def _keep(self, name: str) -> None:
        paths = os.pathsep.join([str(APPS), os.environ.get("PYTHONPATH", "")])
        while not self._ending:
            self.starts[name] += 1
            arguments = [
                sys.executable, "-W", "ignore", "-m", "celery", "-A", "hazards", "worker",
                "-n", f"{name}@%h", "-l", "INFO", *QUIET, *POOLS[self.pool],
            ]  # fmt: skip
            self.programs[name] = Program(
                arguments,
                self.folder / f"{name}.log",
                {"PYTHONPATH": paths, "PYTHONFAULTHANDLER": "", **self.environment},
            )
            self.programs[name].process.wait()

    def output(self, name: str) -> str:
        program = self.programs.get(name)
        return program.output() if program is not None else ""

    def traces(self) -> list[tuple[str, str, float, int]]:
        """Event, what, instant and process of every trace."""
        if not self.traces_file.exists():
            return []
        found = []
        for line in self.traces_file.read_text().splitlines():
            event, what, at, pid = line.split(" ")
            found.append((event, what, float(at), int(pid)))
        return found

    def count(self, event: str) -> int:
        return sum(each[0] == event for each in self.traces())

    def wait(self, found: Callable[[], Any], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := found()):
            if time.monotonic() > deadline:
                logs = "\n".join(f"{n}:\n{self.output(n)[-3000:]}" for n in self.programs)
                raise AssertionError(f"not within {seconds} s\n{logs}")
            time.sleep(0.05)
        return value

    def stop(self) -> None:
        self._ending = True
        for program in self.programs.values():
            program.stop()
        for thread in self._threads:
            thread.join(30)


@contextmanager
def crew(folder: Path, traces: Path, pool: str = "ironbeat", **environment: str) -> Iterator[Crew]:
    """A crew without workers yet; all of them end with the block."""
    found = Crew(folder, traces, pool, **environment)
    try:
        yield found
    finally:
        found.stop()


def ended(crew: Crew, ledger: Ledger, id: str, seconds: float = 60) -> Run:
    """The run with this id, once it has ended."""

    def look() -> Run | None:
        try:
            run = ledger.get(id)
        except RunNotFound:
            return None
        return run if run.ended else None

    found: Run = crew.wait(look, seconds)
    return found
