"""The lines of the platform's own worker, up to its very last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from celery import Celery
from tests.api_server import install_billing

from ironbeat.execution.leaving import ExitStatus


@pytest.fixture
def worker(settings, tmp_path):
    install_billing(tmp_path / "site")
    log = tmp_path / "worker.log"
    process = subprocess.Popen(
        [
            *(str(Path(sys.executable).with_name("ironbeat")), "worker", "--name", "w7"),
            *("--logfile", str(log)),
        ],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site"), "IRONBEAT_WORKLOADS": "billing"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process, log
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_a_worker_says_whose_line_it_is_and_why_it_leaves(worker, settings):
    process, log = worker
    app = Celery(broker=settings.broker_url.get_secret_value())
    header = {"schedule": "nightly", "scheduled_for": "2026-01-01T03:00:00+00:00"}
    sent = app.send_task(
        "billing.endless",
        queue="invoices",
        soft_time_limit=5,
        time_limit=6,
        headers={"ironbeat": header},
    )
    try:
        status = process.wait(60)
    except subprocess.TimeoutExpired:
        pytest.fail(log.read_text())
    assert status == ExitStatus.HARD_LIMIT, process.stderr.read()
    time.sleep(0.1)

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["program"] for line in lines} == {"worker"}
    (begun,) = [line for line in lines if line["event"].endswith("has begun")]
    assert (begun["task"], begun["task_id"], begun["attempt"]) == ("billing.endless", sent.id, 1)
    (line,) = [line for line in lines if line["event"] == "it takes long"]
    assert line["worker"].startswith("w7@")
    assert (line["task"], line["task_id"], line["run_id"]) == ("billing.endless", sent.id, sent.id)
    assert (line["workload"], line["schedule"], line["attempt"]) == ("billing", "nightly", 1)
    (last,) = [line for line in lines if line["event"].startswith("worker leaves")]
    assert last["level"] == "critical" and "billing.endless" in last["event"]
    assert lines.index(last) > lines.index(line)
