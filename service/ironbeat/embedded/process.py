"""A server's process: how it is started, how it is stopped."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import psutil

from ironbeat.embedded.account import Account

# A server sees nothing of the caller's environment, where secrets may stand.
MINIMAL_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

_PR_SET_PDEATHSIG = 1


class EmbeddedError(Exception):
    """An embedded server cannot be prepared or does not start; the message says what to do."""


@dataclass(frozen=True)
class Command:
    """A server ready to run: its arguments, directory, user and environment."""

    arguments: tuple[str, ...]
    directory: Path
    account: Account
    environment: Mapping[str, str] = field(default_factory=dict)

    def become(self) -> NoReturn:
        """Replace this process with the server."""
        os.chdir(self.directory)
        os.umask(0o077)
        self.account.assume()
        # Whose child it is, so that it is recognised should its supervisor be killed.
        supervised = {k: v for k, v in os.environ.items() if k.startswith("SUPERVISOR_")}
        environment = {**MINIMAL_ENVIRONMENT, **supervised, **self.environment}
        os.execve(self.arguments[0], list(self.arguments), environment)  # noqa: S606


class ServerProcess:
    """A server that this process has started, with its address.

    ``url`` reaches it from this machine and carries its password. Faults are caused with
    :meth:`kill`, :meth:`pause` and :meth:`resume`; :meth:`start` after :meth:`stop` or
    :meth:`kill` brings the same data back on the same address.
    """

    def __init__(
        self,
        url: str,
        prepare: Callable[[], Command],
        ready: Callable[[], bool],
        log: Path,
        stop_signal: signal.Signals,
    ) -> None:
        self.url = url
        self._prepare = prepare
        self._ready = ready
        self.log = log
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The server's process id; raises :class:`EmbeddedError` when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise EmbeddedError("the server is not running; call start() first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 30.0) -> None:
        """Start the server and wait until it answers; raises :class:`EmbeddedError` if it won't."""
        if self.running:
            return
        command = self._prepare()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command.arguments,
                cwd=command.directory,
                env={**MINIMAL_ENVIRONMENT, **command.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent(self._stop_signal),
                umask=0o077,
                **command.account.popen_arguments(),
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if self._ready():
                return
            time.sleep(0.02)
        status = self._process.poll()
        self.stop(timeout=2.0)
        what = "did not answer in time" if status is None else f"ended with status {status}"
        raise EmbeddedError(f"{command.arguments[0]} {what}; its log ends:\n{self._log_tail()}")

    def stop(self, timeout: float = 15.0) -> None:
        """Shut the server down properly; kill it if it takes longer than ``timeout`` seconds."""
        if self._process is None:
            return
        self.resume()
        if self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End the server at once (SIGKILL), its children with it, as a crash would."""
        if self._process is None:
            return
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stop the server and its children in their tracks (SIGSTOP): there, but not answering."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def _family(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _log_tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What makes the kernel stop a throw-away server when its starter is killed (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def request() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number))

    return request
