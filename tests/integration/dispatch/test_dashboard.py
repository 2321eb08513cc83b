"""RQ's web page: behind a password, and showing what waits."""

from __future__ import annotations

import base64
import json
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from sides import APPS, QUEUE
from tests.processes import Program, wait_for

from ironbeat import HybridTaskManager
from ironbeat.settings import get_settings

# Programs are started; on a busy machine that alone takes long.
pytestmark = pytest.mark.timeout(300)
PROGRAM = str(Path(sys.executable).parent / "ironbeat")


def get(url: str, account: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url)
    if account:
        request.add_header("Authorization", f"Basic {base64.b64encode(account.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_the_page(
    hybrid: HybridTaskManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    submitted = hybrid.submit_task("adopted.add", 1, 2)
    monkeypatch.setenv("IRONBEAT_FLOWER_BASIC_AUTH", "op:pass,other:word")
    get_settings.cache_clear()
    command = [PROGRAM, "rq-dashboard", "--port", "0"]
    running = Program(command, tmp_path / "log", {"PYTHONPATH": str(APPS)})
    try:
        found = wait_for(
            lambda: re.search(r"listens on (http://127\.0\.0\.1:\d+)", running.output()),
            seconds=120,
            program=running,
        )
        url = found[1]
        assert get(url)[0] == get(url, "op:wrong")[0] == get(f"{url}/0/data/queues.json")[0] == 401
        status, page = get(url, "other:word")
        assert status == 200 and "RQ" in page
        queues = json.loads(get(f"{url}/0/data/queues.json", "op:pass")[1])["queues"]
        assert [(each["name"], each["count"]) for each in queues] == [(QUEUE, 1)]
        jobs = get(f"{url}/0/data/jobs/{QUEUE}/queued/8/asc/1.json", "op:pass")[1]
        assert submitted.id in jobs and "adopted.add" in jobs
        assert "pass" not in running.output()
    finally:
        running.stop()


def test_without_a_password_it_does_not_run(tmp_path: Path, settings: object) -> None:
    running = Program([PROGRAM, "rq-dashboard", "--port", "0"], tmp_path / "log", {})
    assert running.process.wait(timeout=120) == 5
    assert "never runs without one" in running.output()
