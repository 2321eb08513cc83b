"""Celery workers as processes, and what they wrote into their journal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import celery
from consumers import application

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Line:
    """Something a task did."""

    at: float
    pid: int
    event: str
    id: str


def wait_for(what: Callable[[], Any], timeout: float = 20.0, hint: Callable[[], str] = str) -> Any:
    """What ``what`` returns once it is true."""
    deadline = time.monotonic() + timeout
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < deadline, f"it did not happen in time\n{hint()}"
        time.sleep(0.02)


@dataclass
class Fleet:
    """Workers on one broker, sharing a journal."""

    broker: str
    home: Path
    backend: str | None = None
    conf: dict[str, Any] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.journal = self.home / "journal"
        self.app: celery.Celery = application(self.broker)
        self.app.conf.update(result_backend=self.backend, task_ignore_result=not self.backend)

    def start(
        self,
        *arguments: str,
        pool: str = "custom",
        concurrency: int = 1,
        queues: str = "default",
        stock: bool = False,
        broker: str | None = None,
        conf: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
        wait: bool = True,
    ) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it is ready."""
        number = len(self.processes)
        environment = {
            **os.environ,
            "BROKER": broker or self.broker,
            "JOURNAL": str(self.journal),
            "CONF": json.dumps({**self.conf, **(conf or {})}),
            "PYTHONPATH": str(HERE),
            "PYTHONFAULTHANDLER": "",
            "CELERY_CUSTOM_WORKER_POOL": "ironbeat.execution.pool:TaskPool",
            **(environment or {}),
        }
        if self.backend:
            environment["BACKEND"] = self.backend
        if stock:
            environment["STOCK"] = "1"
        with self.log(number).open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-W", "ignore", "-m", "celery", "-A", "worker_app"),
                    *("worker", "-P", pool, "-c", str(concurrency), "-Q", queues),
                    *(
                        "-n",
                        f"w{number}@test",
                        "-l",
                        "INFO",
                        "--without-mingle",
                        "--without-gossip",
                    ),
                    *arguments,
                ],
                env=environment,
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        if wait:
            wait_for(lambda: self.lines("ready", pid=process.pid), 60, lambda: self.output(number))
        return process

    def log(self, number: int) -> Path:
        return self.home / f"worker-{number}.log"

    def output(self, number: int = -1) -> str:
        """What a worker printed, by default the latest."""
        return self.log(number % len(self.processes)).read_text(errors="replace")

    def lines(self, event: str | None = None, pid: int | None = None) -> list[Line]:
        """The journal."""
        if not self.journal.exists():
            return []
        found = []
        for text in self.journal.read_text().splitlines():
            at, by, what, id = text.split(" ", 3)
            if (event is None or what == event) and (pid is None or int(by) == pid):
                found.append(Line(float(at), int(by), what, id))
        return found

    def ids(self, event: str = "did") -> list[str]:
        return [line.id for line in self.lines(event)]

    def counts(self, event: str = "did") -> Counter[str]:
        return Counter(self.ids(event))

    def lease(self, process: subprocess.Popen[bytes]) -> str:
        return self.lines("lease", pid=process.pid)[0].id

    def send(self, task: str, *args: Any, **options: Any) -> Any:
        options.setdefault("queue", "default")
        return self.app.send_task(f"worker_app.{task}", args, **options)

    def send_many(self, task: str, arguments: list[tuple[Any, ...]], **options: Any) -> None:
        with self.app.producer_or_acquire() as producer, producer.batch():
            for args in arguments:
                self.send(task, *args, producer=producer, retry=False, **options)

    def wait(self, number: int, event: str = "did", timeout: float = 60.0) -> None:
        """Wait until so many different ids have it."""
        wait_for(lambda: self._may_have(number, event), timeout, self._hint)

    def _may_have(self, number: int, event: str) -> bool:
        # Reading a long journal again and again takes time from the workers.
        time.sleep(0.1)
        if not self.journal.exists() or self.journal.read_bytes().count(b"\n") < number:
            return False
        return len(self.counts(event)) >= number

    def _hint(self) -> str:
        return "\n".join(
            [str(len(self.counts())), *(self.output(n)[-1500:] for n in range(len(self.processes)))]
        )

    def stop(self, *processes: subprocess.Popen[bytes], timeout: float = 20) -> list[int]:
        """Stop workers, by default all, warmly; returns their exit statuses."""
        chosen = processes or tuple(self.processes)
        for process in chosen:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        return [process.wait(timeout) for process in chosen]

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()
                process.wait()
