"""The API as it is served: uvicorn in processes of its own, with a workload of somebody's own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx

from ironbeat.embedded.temporary import free_port

TOKEN = "t0ken-of-the-api"

TASKS = """
    import logging
    import time
    from celery import shared_task

    log = logging.getLogger("billing")

    @shared_task(name="billing.endless")
    def endless():
        log.warning("it takes long")
        while True:
            try:
                time.sleep(60)
            except Exception:
                pass

    @shared_task(name="billing.charge")
    def charge(customer, amount=1, *, note=""):
        return {"customer": customer, "amount": amount}
"""
ROUTES = """
    import time
    from fastapi import APIRouter

    router = APIRouter(tags=["billing"])

    @router.get("/invoices")
    def invoices():
        return ["one"]

    @router.post("/webhook", tags=["guards itself"])
    def webhook(body: dict):
        return {"received": len(body)}

    @router.get("/slow")
    def slow():
        time.sleep(30)

    @router.get("/broken")
    def broken():
        raise ValueError("the inside story")
"""
DESCRIPTION = """
    from ironbeat import Queue, Workload

    workload = Workload(
        name="billing",
        tasks=("billing_app.tasks",),
        queues=(Queue("invoices"),),
        task_routes={"billing.charge": "invoices"},
        router="billing_app.routes:router",
    )
"""


def install_billing(site: Path) -> None:
    """A package with the entry point, as an installer would lay it down."""
    package = site / "billing_app"
    package.mkdir(parents=True)
    for name, text in (("__init__", DESCRIPTION), ("tasks", TASKS), ("routes", ROUTES)):
        (package / f"{name}.py").write_text(textwrap.dedent(text))
    metadata = site / "billing_app-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: billing-app\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[ironbeat.workloads]\nbilling = billing_app:workload\n"
    )


class Served:
    """A running server."""

    def __init__(self, directory: Path, environment: dict[str, str], workers: int = 1):
        site = directory / "site"
        if not site.exists():
            install_billing(site)
        self.port = free_port()
        self.log = directory / "api.log"
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from ironbeat.api.server import run; run(workers={workers})"],
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
                "IRONBEAT_WORKLOADS": "billing",
                "IRONBEAT_API_TOKEN": TOKEN,
                "IRONBEAT_API_PORT": str(self.port),
                "IRONBEAT_LOG_FILE": str(self.log),
                "IRONBEAT_STATE_DIR": str(directory),
            }
            | environment,
        )
        self.open = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            timeout=20,
            headers={"Authorization": f"Bearer {TOKEN}"},
        )

    def wait(self, seconds: float = 90.0) -> Served:
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.open.get("/health")
                # Celery is imported in the background; an idle server is measured more evenly.
                if self.http.get("/api/tasks").status_code == 200:
                    return self
            except httpx.TransportError:
                assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the API does not come up"
            time.sleep(0.1)

    def stop(self) -> None:
        self.open.close()
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def log_in(browser: httpx.Client, name: str, password: str) -> httpx.Response:
    """Log in on the dashboard; from then on the client's headers carry its CSRF token."""
    token = re.search(r'name="token" value="([^"]+)"', browser.get("/login").text)
    assert token
    form = {"name": name, "password": password, "token": token[1], "next": "/"}
    answer = browser.post("/login", data=form)
    assert answer.status_code == 303, answer.text
    csrf = re.search(r'name="csrf" value="([^"]+)"', browser.get("/audit").text)
    assert csrf
    browser.headers["x-csrf-token"] = csrf[1]
    return answer
