"""A copy of the tree in which ``scripts/up`` is run as a newcomer runs it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil
from dotenv import dotenv_values

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".venv*", ".cache", "var", "__pycache__", ".*_cache", ".hypothesis"),
    *("node_modules", "artifacts"),
)


@contextmanager
def coming_up() -> Iterator[None]:
    """No other installation comes up meanwhile.

    Installations leave each other's ports alone; a listener of a test does not know of them, and
    two that come up at once take twice as long as one test may wait.
    """
    with (Path(tempfile.gettempdir()) / "ironbeat-coming-up.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass
class Clone:
    """A copy of the tree, and how to use it."""

    directory: Path

    def up(self, *arguments: str, **names: str) -> subprocess.CompletedProcess[str]:
        """Run ``scripts/up`` from somewhere else, with nothing of this machine's settings."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("IRONBEAT_")}
        with nullcontext() if {"--down", "--status"} & {*arguments} else coming_up():
            return subprocess.run(
                [str(self.directory / "scripts" / "up"), *arguments],
                cwd="/",
                env=environment | names,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def ironbeat(self, *arguments: str) -> dict:
        """What a command answers, run as the user would: with no variable set."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("IRONBEAT_")}
        done = subprocess.run(
            [str(self.directory / ".venv" / "bin" / "ironbeat"), *arguments, "--json"],
            cwd="/",
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    @property
    def settings(self) -> dict[str, str]:
        return dotenv_values(self.directory / "var" / "env", interpolate=False)  # type: ignore[return-value]

    def processes(self) -> dict[str, psutil.Process]:
        """The supervised processes by name, as the kernel has them."""
        mark = f"unix://{self.settings['IRONBEAT_RUN_DIR']}/supervisor.sock"
        found = {}
        for process in psutil.process_iter():
            try:
                environment = process.environ()
            except (psutil.Error, OSError):
                continue
            if environment.get("SUPERVISOR_SERVER_URL") == mark:
                name = environment["SUPERVISOR_PROCESS_NAME"]
                # A program's own children inherit its name; the eldest is the program.
                if name not in found or process.create_time() < found[name].create_time():
                    found[name] = process
        return found

    def health(self) -> tuple[int, dict]:
        url = f"http://127.0.0.1:{self.settings['IRONBEAT_API_PORT']}/health"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}


@contextmanager
def cloned() -> Iterator[Clone]:
    """A fresh copy; what it has started is stopped when the block ends."""
    # Not below pytest's own directory, which is closed to the user that root's servers run as.
    with tempfile.TemporaryDirectory(prefix="ironbeat-up-") as directory:
        Path(directory).chmod(0o755)
        target = Path(directory) / "a clone"
        shutil.copytree(ROOT, target, ignore=LEFT_OUT)
        found = Clone(target)
        try:
            yield found
        finally:
            if (target / "var" / "env").exists():
                found.up("--down", "--now")
