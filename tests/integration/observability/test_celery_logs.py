"""Celery's own lines and a task's lines, from a real worker, in one form."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from celery import Celery

APP = """
    import logging
    from celery import Celery
    from celery.utils.log import get_task_logger
    from ironbeat.observability import logs

    app = Celery("logged", broker={broker!r})
    app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
    logs.hook_celery()

    @app.task(name="logged.speak")
    def speak(text):
        get_task_logger(__name__).info("says %s", text)
        logs.get_logger("plain").info("structured", text=text)
        print("to standard output", flush=True)

    @app.task(name="logged.fail")
    def fail():
        raise ValueError("boom with redis://:hunter2@x/1")
"""


@pytest.fixture(params=["solo", "prefork"])
def worker(request, settings, tmp_path, monkeypatch):
    broker = settings.broker_url.get_secret_value()
    (tmp_path / "logged.py").write_text(textwrap.dedent(APP).format(broker=broker))
    log = tmp_path / "worker.log"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "-A", "logged", "worker"),
            *("--pool", request.param, "--concurrency", "1", "--loglevel", "info"),
            *("--logfile", str(log), "--hostname", "w1@here"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process, log, broker
    if process.poll() is None:
        process.kill()
    process.wait()


def lines_of(log):
    found = []
    for file in log.parent.glob("worker*.log"):
        found += [json.loads(line) for line in file.read_text().splitlines()]
    return found


def test_every_line_of_a_worker_is_json_and_says_whose_it_is(worker):
    process, log, broker = worker
    app = Celery(broker=broker)
    header = {"schedule": "nightly", "scheduled_for": "2026-01-01T03:00:00+00:00"}
    spoken = app.send_task("logged.speak", ["hello"], headers={"ironbeat": header})
    failed = app.send_task("logged.fail")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = lines_of(log)
        if any("raised unexpected" in str(line["event"]) for line in found):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)

    found = lines_of(log)
    by_event = {line["event"]: line for line in found}
    for event in ("says hello", "structured"):
        line = by_event[event]
        assert line["task"] == "logged.speak"
        assert (line["task_id"], line["run_id"]) == (spoken.id, spoken.id)
        assert line["worker"] == "w1@here" and line["attempt"] == 1
        assert line["schedule"] == "nightly"
    assert by_event["structured"]["text"] == "hello"
    (error,) = [line for line in found if "raised unexpected" in line["event"]]
    assert error["level"] == "error" and error["logger"] == "celery.app.trace"
    assert failed.id in error["event"] and "ValueError" in error["exception"]
    assert any("ready" in line["event"] for line in found)
    # Celery did not redirect what the task prints into a log.
    assert "to standard output" in output
    assert "hunter2" not in json.dumps(found)
