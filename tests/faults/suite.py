"""A whole suite of its own, under supervisord, with a workload that counts its executions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from ironbeat.local.installation import Installation
from ironbeat.local.supervised import Process, Supervisor
from ironbeat.settings import ENV_FILE, Settings

ROOT = Path(__file__).resolve().parents[2]
COUNTING = ROOT / "tests" / "projects" / "counting"


class Suite:
    """One installation in a directory of its own; ``up`` starts it, ``down`` ends all of it."""

    def __init__(self, directory: Path, *, workers: int = 2, **settings: str) -> None:
        self.directory = directory
        self.packages = directory / "packages"
        # Beside the packages: there the counting tasks look for it.
        self.traces = directory / "traces"
        self.installation = Installation(ROOT, directory / "var")
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("IRONBEAT_")},
            "IRONBEAT_STATE_DIR": str(self.installation.state_dir),
            "IRONBEAT_WORKLOADS": "counting",
            "WORKER_COUNT": str(workers),
            "WORKER_CONCURRENCY": "1",
            "PYTHONPATH": str(self.packages),
            **settings,
        }

    def up(self) -> None:
        """Install the counting package beside Ironbeat and bring everything up."""
        self.traces.touch()
        self.traces.chmod(0o666)
        self._run(
            "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
            "--python", sys.executable, "--target", str(self.packages), str(COUNTING),
        )  # fmt: skip
        self._run("-m", "ironbeat.local", str(ROOT))

    def down(self) -> None:
        """Stop everything, and whatever a fault may have left stopped."""
        for process in self.processes():
            if process.pid:
                self._signal(process.pid, signal.SIGCONT)
        self._run("-m", "ironbeat.local", str(ROOT), "--down", "--now")

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self._environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            output = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            raise AssertionError(f"{arguments} failed\n{output}")
        return done.stdout

    # -- looking -----------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings of the running installation."""
        values = dotenv_values(self.installation.env_file)
        return Settings.model_validate(
            {
                "database_url": values["IRONBEAT_DATABASE_URL"],
                "broker_url": values["IRONBEAT_BROKER_URL"],
            }
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a submitting process of this installation finds in its environment."""
        return {**self._environment, ENV_FILE: str(self.installation.env_file)}

    def processes(self) -> list[Process]:
        """The programs as supervisord sees them."""
        supervisor = Supervisor(self.installation.run_dir)
        return supervisor.processes() if supervisor.running else []

    def pids(self, group: str) -> list[int]:
        """The pids of a program's running processes."""
        return [p.pid for p in self.processes() if p.group == group and p.pid]

    def health(self) -> dict[str, Any]:
        """What ``/health`` answers, whatever its status; empty when it does not."""
        values = dotenv_values(self.installation.env_file)
        url = f"http://127.0.0.1:{values['IRONBEAT_API_PORT']}/health"
        try:
            with urllib.request.urlopen(url, timeout=3) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return json.loads(error.read())
        except OSError:
            return {}

    # -- breaking ----------------------------------------------------------------------------------

    def kill(
        self, group: str, number: int = signal.SIGKILL, *, index: int | None = None
    ) -> list[int]:
        """Send a signal to a program's processes, or to one of them; returns their pids."""
        pids = self.pids(group)
        chosen = pids if index is None else [pids[index]]
        for pid in chosen:
            self._signal(pid, number)
        return chosen

    def hold(self, group: str) -> None:
        """Stop a program in order, and keep it stopped."""
        Supervisor(self.installation.run_dir).stop(group)

    def release(self, group: str) -> None:
        """Start a program that was held."""
        Supervisor(self.installation.run_dir).ensure_started((group,))

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    def until_healthy(self, seconds: float = 60) -> float:
        """Wait until ``/health`` says healthy; returns how long that took."""
        return wait_until(lambda: self.health().get("status") == "healthy", seconds)


def wait_until(holds: Callable[[], bool], seconds: float) -> float:
    """Wait until something holds; returns the seconds it took, fails after ``seconds``."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.1)
    return time.monotonic() - began
