"""A whole suite of its own, under supervisord, with a workload that counts its executions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from dotenv import dotenv_values

from ironbeat.local.installation import Installation
from ironbeat.local.supervised import Process, Supervisor
from ironbeat.settings import ENV_FILE, Settings
from tests.faults.accounting import Traces
from tests.installation import coming_up

ROOT = Path(__file__).resolve().parents[2]
COUNTING = ROOT / "tests" / "projects" / "counting"


def own_directory() -> Path:
    """A new directory that the database's own user can reach, too.

    pytest's are closed to others, and closed again whenever another pytest begins.
    """
    directory = Path(tempfile.mkdtemp(prefix="ironbeat-faults-"))
    directory.chmod(0o755)
    return directory


class Suite:
    """One installation in a directory of its own; ``up`` starts it, ``down`` ends all of it.

    ``settings`` are environment variables. ``disk_mb``: its state lies on a file system of that
    size (which takes root). ``clock``: all of its programs live so many seconds later than we do,
    by ``clock_variables`` (of libfaketime, see :mod:`tests.faults.clock`).
    """

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 2,
        disk_mb: int | None = None,
        clock: float = 0.0,
        clock_variables: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.disk_mb = disk_mb
        self.clock = clock
        self.clock_variables = dict(clock_variables or {})
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
            **(settings or {}),
        }

    def up(self) -> None:
        """Install the counting package beside Ironbeat and bring everything up."""
        if self.disk_mb is not None:
            self.disk.mkdir()
            size = f"size={self.disk_mb}m,mode=755"
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self.disk)], check=True
            )
        self.traces.touch()
        self.traces.chmod(0o666)
        self._run(
            "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
            "--python", sys.executable, "--target", str(self.packages), str(COUNTING),
        )  # fmt: skip
        shutil.copy(ROOT / "tests" / "faults" / "preload" / "sitecustomize.py", self.packages)
        if self.clock_variables:
            (self.packages / "clock.json").write_text(json.dumps(self.clock_variables))
        with coming_up():
            self._run("-m", "ironbeat.local", str(ROOT))

    def down(self) -> None:
        """Stop everything, and whatever a fault may have left stopped."""
        try:
            for process in self.processes():
                if process.pid:
                    self._signal(process.pid, signal.SIGCONT)
            self._run("-m", "ironbeat.local", str(ROOT), "--down", "--now")
        finally:
            self._end_what_is_left()
            if self.disk_mb is not None and self.disk.is_mount():
                subprocess.run(["umount", "--lazy", str(self.disk)], check=True)

    def end(self, *, logs: Path | None = None) -> None:
        """Stop everything and remove the directory; its logs are copied to ``logs`` before."""
        try:
            self.down()
        finally:
            if logs is not None and self.installation.log_dir.exists():
                shutil.copytree(self.installation.log_dir, logs, dirs_exist_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end_what_is_left(self) -> None:
        supervisor = Supervisor(self.installation.run_dir)
        pidfile = self.installation.run_dir / "supervisord.pid"
        if supervisor.running and pidfile.exists():
            self._signal(int(pidfile.read_text()), signal.SIGKILL)
        supervisor.stop_orphans()

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

    @property
    def disk(self) -> Path:
        """The suite's file system, where it has one of its own."""
        return self.directory / "var"

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

    @property
    def url(self) -> str:
        """The database."""
        return self.settings.database_url.get_secret_value()

    def now(self) -> float:
        """The time by the suite's clocks, in seconds since the epoch."""
        return time.time() + self.clock

    def executions(self) -> int:
        """How many executions have begun until now."""
        return self.traces.read_text().count("begin ")

    def begun_since(self, since: float) -> bool:
        """Whether a task has begun since then (by :meth:`now`)."""
        begins = Traces.read(self.traces, since).begins.values()
        return any(times[-1] > since for times in begins)

    def rows(self, query: str, *parameters: Any) -> list[Any]:
        """What a query of the suite's database returns."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(query, parameters).fetchall()

    def fires(self) -> int:
        """How many slots were fired until now."""
        return int(self.rows("SELECT count(*) FROM ironbeat.fires")[0][0])

    def worker_of(self, id: str) -> int:
        """Wait until a run is executing; the pid of its worker."""
        wait_until(lambda: id in Traces.read(self.traces).begins, 60)
        for line in self.traces.read_text().splitlines():
            event, traced, _, pid = line.split()
            if event == "begin" and traced == id:
                return int(pid)
        raise AssertionError(f"{id} left no trace")

    def submit(self, task: str, *arguments: Any) -> str:
        """Submit a task durably, from a process of its own; its run's id."""
        code = (
            "import sys, json; from ironbeat import TaskManager, create_app;"
            "print(TaskManager(create_app()).submit(sys.argv[1], json.loads(sys.argv[2])))"
        )
        return self.python("-c", code, task, json.dumps(arguments)).split()[-1]

    def submit_each(self, task: str, count: int, *arguments: Any) -> list[str]:
        """Submit ``count`` of a task durably, from one process; their runs' ids."""
        code = (
            "import sys, json; from ironbeat import TaskManager, create_app;"
            "manager = TaskManager(create_app());"
            "[print(manager.submit(sys.argv[1], json.loads(sys.argv[2])))"
            " for _ in range(int(sys.argv[3]))]"
        )
        return self.python("-c", code, task, json.dumps(arguments), str(count)).split()

    def python(self, *arguments: str) -> str:
        """What a program beside the suite prints."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120,
        ).stdout  # fmt: skip

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

    def family(self, *groups: str) -> list[psutil.Process]:
        """The processes of programs, with all that they have started."""
        found: list[psutil.Process] = []
        for pid in (pid for group in groups for pid in self.pids(group)):
            with suppress(psutil.NoSuchProcess):
                parent = psutil.Process(pid)
                found += [parent, *parent.children(recursive=True)]
        return found

    def signal_family(self, number: int, *groups: str) -> None:
        """Send a signal to programs and to all that they have started."""
        for process in self.family(*groups):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    @contextmanager
    def frozen(self, *groups: str) -> Iterator[None]:
        """Programs and all that they have started stand still, until the block ends."""
        processes = self.family(*groups)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Nobody else writes to a table, until the block ends."""
        with psycopg.connect(self.url) as connection:
            connection.execute(f"LOCK TABLE {table} IN SHARE MODE")
            yield
            connection.rollback()

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
