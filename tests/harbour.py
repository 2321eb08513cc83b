"""A whole suite with a workload of its own, for a browser to look at: stores, beat, worker, API."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import psycopg
from cryptography.fernet import Fernet

from ironbeat.embedded.temporary import free_port
from tests.processes import Program

VIEWER, OPERATOR = "viewer-passes-by", "operator-at-work"
TOKEN = "t0ken-of-the-harbour"

TASKS = """
    import os
    import signal
    import time
    from celery import shared_task
    from ironbeat import report_progress

    @shared_task(name="harbour.count")
    def count(ships=3, *, password=""):
        return {"ships": ships}

    @shared_task(name="harbour.unload")
    def unload(crates=4, seconds=0.5):
        for crate in range(crates):
            report_progress(100 * crate // crates, f"crate {crate + 1} of {crates}")
            time.sleep(seconds)
        return crates

    @shared_task(name="harbour.sink")
    def sink(why="an iceberg"):
        raise RuntimeError(f"{why} was in the way")

    @shared_task(name="harbour.explode")
    def explode():
        os.kill(os.getpid(), signal.SIGKILL)
"""
DESCRIPTION = """
    from ironbeat import Queue, ScheduleSpec, Workload

    workload = Workload(
        name="harbour",
        tasks=("harbour_app.tasks",),
        queues=(Queue("docks"), Queue("forgotten")),
        task_routes={"harbour.*": "docks"},
        schedules=(
            ScheduleSpec(name="count-ships", task="harbour.count", every="2s"),
            ScheduleSpec(name="nightly-unload", task="harbour.unload", cron="30 3 * * *"),
            ScheduleSpec(name="sink-now-and-then", task="harbour.sink", every="1h"),
        ),
        rq=True,
        router="harbour_app.routes:router",
    )
"""
ROUTES = """
    from fastapi import APIRouter
    from fastapi.responses import HTMLResponse

    router = APIRouter(tags=["harbour"])

    @router.get("/page", response_class=HTMLResponse)
    def page():
        return HTMLResponse("<!doctype html><title>Harbour</title><h1>The harbour's own page</h1>")
"""


def install_harbour(site: Path) -> None:
    """A package with the entry point, as an installer would lay it down."""
    package = site / "harbour_app"
    package.mkdir(parents=True)
    for name, text in (("__init__", DESCRIPTION), ("tasks", TASKS), ("routes", ROUTES)):
        (package / f"{name}.py").write_text(textwrap.dedent(text))
    metadata = site / "harbour_app-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: harbour-app\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[ironbeat.workloads]\nharbour = harbour_app:workload\n"
    )


class Suite:
    """The suite's programs on stores that are there already; ``stop`` ends them."""

    def __init__(self, directory: Path, database_url: str, redis_url: str):
        site = directory / "site"
        install_harbour(site)
        self.directory = directory
        self.database_url = database_url
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
            "IRONBEAT_WORKLOADS": "harbour",
            "IRONBEAT_DATABASE_URL": database_url,
            "IRONBEAT_BROKER_URL": f"{redis_url}/7",
            "IRONBEAT_RESULT_BACKEND": f"{redis_url}/8",
            "IRONBEAT_STATE_DIR": str(directory / "state"),
            "IRONBEAT_ENCRYPTION_KEY": Fernet.generate_key().decode(),
            "IRONBEAT_API_TOKEN": TOKEN,
            "IRONBEAT_API_PORT": str(self.port),
            "IRONBEAT_API_WORKERS": "1",
            "IRONBEAT_DASHBOARD_VIEWER_PASSWORD": VIEWER,
            "IRONBEAT_DASHBOARD_OPERATOR_PASSWORD": OPERATOR,
            "IRONBEAT_WORKER_QUEUES": "default,docks",
            "IRONBEAT_WORKER_CONCURRENCY": "1",
            "IRONBEAT_POISON_LIMIT": "1",
            "IRONBEAT_LEASE_SECONDS": "3",
            "IRONBEAT_LEASE_RENEW_SECONDS": "0.5",
        }
        self.programs: dict[str, Program] = {}

    def start(self, *names: str) -> Suite:
        """Start programs, the API last; wait until it answers and knows its tasks."""
        self.ironbeat("db", "upgrade")
        self.ironbeat("schedule", "import")
        for name in names or ("beat", "worker", "watchdog", "api"):
            self.run(name)
        self.wait()
        return self

    def run(self, name: str) -> Program:
        """Start one program, again if need be."""
        arguments = [str(Path(sys.executable).parent / "ironbeat"), name]
        log = self.directory / f"{name}.log"
        self.programs[name] = Program(arguments, log, self.environment)
        return self.programs[name]

    def ironbeat(self, *arguments: str, stdin: str | None = None) -> str:
        """The output of a command."""
        done = subprocess.run(
            [str(Path(sys.executable).parent / "ironbeat"), *arguments],
            env=os.environ | self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def wait(self, seconds: float = 300.0) -> None:
        deadline = time.monotonic() + seconds
        with httpx.Client(
            base_url=self.address, timeout=20, headers={"Authorization": f"Bearer {TOKEN}"}
        ) as http:
            while True:
                try:
                    if http.get("/api/tasks").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                ended = self.programs["api"].process.poll() is not None
                late = time.monotonic() > deadline
                assert not ended and not late, self.programs["api"].output()[-4000:]
                time.sleep(0.1)

    def submit(self, task: str, **fields: object) -> str:
        """Hand a task over; returns its run's id."""
        answer = httpx.post(
            f"{self.address}/api/tasks",
            json={"task": task, **fields},
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=30,
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def sql(self, statement: str, *parameters: object) -> list[tuple]:
        """Rows of the suite's database."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            found = connection.execute(statement, parameters)
            return found.fetchall() if found.description else []

    def stop(self) -> None:
        """End every program that was started."""
        for each in self.programs.values():
            each.stop()
