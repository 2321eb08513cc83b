"""The installation's supervisord and its processes, over its private socket."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import time
import xmlrpc.client  # what supervisord speaks; it listens to nobody but this user
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

# Its processes are the scaler's to start.
SPARE = "spare"

START_SECONDS = 15.0
ORPHAN_SECONDS = 10.0

# Gone, or never there: what calling supervisord raises then.
_GONE = (OSError, http.client.HTTPException)


class SupervisorError(Exception):
    """supervisord does not do what it was asked; the message says why."""


@dataclass(frozen=True)
class Process:
    """One process as supervisord sees it."""

    name: str
    group: str
    state: str
    pid: int
    seconds: int
    logfile: Path
    problem: str

    @property
    def running(self) -> bool:
        """Whether it runs, and has for longer than it takes to fail at once."""
        return self.state == "RUNNING"

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.logfile.read_text(errors="replace").splitlines()[-lines:])
        return ""


class Supervisor:
    """The supervisord whose socket lies in ``run_dir``."""

    def __init__(self, run_dir: Path) -> None:
        self._socket = run_dir / "supervisor.sock"
        self.url = f"unix://{self._socket}"

    @property
    def running(self) -> bool:
        """Whether it answers."""
        try:
            self._call("getState")
        except _GONE:
            return False
        return True

    def start(self, program: Path, configuration: Path, environment: Mapping[str, str]) -> None:
        """Start supervisord in the background and wait until it answers."""
        started = subprocess.run(
            [str(program), "-c", str(configuration)],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if started.returncode != 0:
            raise SupervisorError(f"supervisord does not start:\n{started.stdout.strip()}")
        deadline = time.monotonic() + START_SECONDS
        while not self.running:
            if time.monotonic() > deadline:
                raise SupervisorError(f"supervisord does not answer on {self._socket}")
            time.sleep(0.05)

    def processes(self) -> list[Process]:
        """All its processes, in the order in which they are started."""
        return [
            Process(
                name=each["name"],
                group=each["group"],
                state=each["statename"],
                pid=each["pid"],
                seconds=max(each["now"] - each["start"], 0) if each["pid"] else 0,
                logfile=Path(each["stdout_logfile"]),
                problem=each["spawnerr"],
            )
            for each in self._call("getAllProcessInfo")
        ]

    def ensure_started(self, groups: tuple[str, ...] | None = None) -> None:
        """Start what does not run, without waiting for it; a process that was given up, too."""
        for process in self.processes():
            if groups is not None and process.group not in groups:
                continue
            if groups is None and process.group == SPARE:
                continue
            if process.state in ("STOPPED", "EXITED", "FATAL", "BACKOFF", "UNKNOWN"):
                # Between asking and starting, it may have started itself.
                with contextlib.suppress(xmlrpc.client.Fault):
                    self._call("startProcess", f"{process.group}:{process.name}", False)

    def stop(self, group: str) -> None:
        """Stop every process of ``group`` and wait for its end; it stays stopped."""
        self._call("stopProcessGroup", group, True)

    def kill(self, group: str) -> None:
        """End every process of ``group`` in the middle of what it does, for good."""
        with contextlib.suppress(xmlrpc.client.Fault):
            # Told first, supervisord does not start them again.
            self._call("stopProcessGroup", group, False)
        with contextlib.suppress(xmlrpc.client.Fault):
            self._call("signalProcessGroup", group, "KILL")

    def shut_down(self, last: tuple[str, ...], waiting: Callable[[list[Process]], None]) -> None:
        """Stop every process gracefully, the groups in ``last`` after the others, then supervisord.

        ``waiting`` is told which processes still run.
        """
        pid = int(self._call("getPID"))
        # All at once: supervisord itself would wait for each group before it tells the next.
        for group in {each.group for each in self.processes()} - set(last):
            with contextlib.suppress(xmlrpc.client.Fault):
                self._call("stopProcessGroup", group, False)
        while running := [each for each in self.processes() if each.pid and each.group not in last]:
            waiting(running)
            time.sleep(0.1)
        with contextlib.suppress(xmlrpc.client.Fault):  # it is on its way already
            self._call("shutdown")
        while psutil.pid_exists(pid):
            with contextlib.suppress(*_GONE, xmlrpc.client.Fault):
                waiting([each for each in self.processes() if each.pid])
            time.sleep(0.1)

    def stop_orphans(self) -> list[str]:
        """End the processes of an earlier supervisord that was itself killed; returns their names.

        They would hold ports, pidfiles and the database's directory against their successors.
        """
        orphans = self._orphans()
        names = [name for name, _ in orphans]
        stores = [process for name, process in orphans if name in ("postgres", "redis")]
        others = [process for _, process in orphans if process not in stores]
        for processes, number in ((others, signal.SIGTERM), (stores, signal.SIGINT)):
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
            _, alive = psutil.wait_procs(processes, ORPHAN_SECONDS)
            for process in alive:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(alive, ORPHAN_SECONDS)
        return names

    def _orphans(self) -> list[tuple[str, psutil.Process]]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                environment = process.environ()
                if environment.get("SUPERVISOR_SERVER_URL") == self.url:
                    found.append((environment.get("SUPERVISOR_PROCESS_NAME", "?"), process))
        return found

    def _call(self, method: str, *arguments: Any) -> Any:
        if not self._socket.exists():
            raise ConnectionError(f"{self._socket} does not exist")
        transport = SupervisorTransport(None, None, self.url)
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        finally:
            transport.close()


def reachable(host: str, port: int, seconds: float = 1.0) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=seconds):
            return True
    except OSError:
        return False
