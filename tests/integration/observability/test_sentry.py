"""Errors and check-ins as they arrive at Sentry's ingest, which a local server stands for."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from celery import Celery

APP = """
    from celery import Celery
    from ironbeat.observability import logs, sentry
    from ironbeat.observability.sentry import Monitored

    app = Celery("reported", broker={broker!r})
    app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
    logs.hook_celery()
    schedules = {{"nightly": Monitored("cron", "0 3 * * *", "Asia/Taipei", None, 900)}}
    sentry.hook_celery(schedules.get)

    @app.task(name="reported.work")
    def work():
        return 1

    @app.task(name="reported.fail")
    def fail(password):
        raise ValueError("boom at redis://:hunter2@x/1")

    @app.task(name="reported.retry", bind=True, max_retries=1)
    def retry(self):
        if self.request.retries == 0:
            raise self.retry(countdown=0)
"""


class Ingest(ThreadingHTTPServer):
    """Takes envelopes as Sentry's ingest does and keeps their items."""

    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.items: list[tuple[str, dict]] = []
        self.delay = 0.0

    @property
    def dsn(self):
        return f"http://publickey1@127.0.0.1:{self.server_address[1]}/1"

    def of(self, kind):
        return [item for found, item in list(self.items) if found == kind]


class Handler(BaseHTTPRequestHandler):
    server: Ingest

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        time.sleep(self.server.delay)
        lines = body.split(b"\n")
        for heading, item in zip(lines[1::2], lines[2::2], strict=False):
            self.server.items.append((json.loads(heading)["type"], json.loads(item)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture
def ingest():
    server = Ingest()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=["solo", "prefork"])
def reported(request, settings, tmp_path, ingest):
    broker = settings.broker_url.get_secret_value()
    (tmp_path / "reported.py").write_text(textwrap.dedent(APP).format(broker=broker))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "celery", "-A", "reported", "worker", "--pool", request.param),
            *("--concurrency", "1", "--hostname", "w1@here", "--logfile", "worker.log"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "SENTRY_DSN": ingest.dsn},
    )
    yield Celery(broker=broker), process
    if process.poll() is None:
        process.kill()
    process.wait()


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def test_failures_and_check_ins_arrive(reported, ingest):
    app, process = reported
    headers = {"ironbeat": {"schedule": "nightly", "workload": "billing"}}
    done = app.send_task("reported.work", headers=headers)
    failed = app.send_task("reported.fail", ["s3cretword"], headers=headers)
    retried = app.send_task("reported.retry", headers=headers)
    app.send_task("reported.work")
    wait_for(lambda: ingest.of("event"))
    process.send_signal(signal.SIGTERM)
    process.wait(20)

    # Once, although both Celery's log and its signal tell of it.
    (event,) = ingest.of("event")
    (exception,) = event["exception"]["values"]
    assert exception["type"] == "ValueError"
    assert event["tags"]["task"] == "reported.fail" and event["tags"]["run_id"] == failed.id
    assert event["tags"]["schedule"] == "nightly" and event["tags"]["workload"] == "billing"
    assert event["tags"]["program"] == "worker" and event["release"].startswith("ironbeat@")
    text = json.dumps(event)
    assert "hunter2" not in text and "s3cretword" not in text

    told: dict[str, list[str]] = {}
    for check_in in ingest.of("check_in"):
        assert check_in["monitor_slug"] == "nightly"
        assert check_in["monitor_config"]["schedule"] == {"type": "crontab", "value": "0 3 * * *"}
        assert check_in["monitor_config"]["timezone"] == "Asia/Taipei"
        told.setdefault(check_in["check_in_id"], []).append(check_in["status"])
    # The first run is told whole; of those that follow too closely only the failure is.
    assert list(told.values()) == [["in_progress", "ok"], ["error"]]
    assert done.id and retried.id


def test_a_sentry_that_hangs_holds_up_no_task(reported, ingest):
    app, process = reported
    ingest.delay = 60.0
    headers = {"ironbeat": {"schedule": "nightly"}}
    app.send_task("reported.fail", ["x"], headers=headers)
    for _ in range(20):
        app.send_task("reported.work", headers=headers)
    with app.connection() as connection:
        client = connection.default_channel.client
        wait_for(lambda: client.llen("celery") == 0 and client.zcard("unacked_index") == 0)
    assert process.poll() is None
