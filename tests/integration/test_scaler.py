"""The scaler with a real supervisord, PostgreSQL and Redis; what it starts only stands in."""

from __future__ import annotations

import getpass
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from tests.processes import wait_for

from ironbeat import Settings
from ironbeat.runs.leases import Lease
from ironbeat.warden.scaler import Scaler
from ironbeat.warden.scaling import Rules
from ironbeat.warden.supervisord import Supervisord

# Drains for a moment when it is told to end, as a worker with a task does.
STAND_IN = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1.5), sys.exit(0)))
while True:
    time.sleep(0.1)
"""


@pytest.fixture
def supervisord(tmp_path: Path) -> Iterator[Supervisord]:
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    (tmp_path / "supervisord.conf").write_text(
        textwrap.dedent(f"""
            [unix_http_server]
            file={tmp_path}/s.sock
            chmod=0770
            chown={getpass.getuser()}
            [supervisord]
            nodaemon=true
            pidfile={tmp_path}/s.pid
            logfile={tmp_path}/s.log
            [rpcinterface:supervisor]
            supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
            [program:spare]
            command={sys.executable} {tmp_path}/stand_in.py
            process_name=worker_%(process_num)02d
            numprocs=3
            numprocs_start=2
            autostart=false
            startsecs=0
            stopwaitsecs=20
            """)
    )
    with (tmp_path / "out").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c",
             str(tmp_path / "supervisord.conf")],
            stdout=output, stderr=output,
        )  # fmt: skip
    try:
        wait_for((tmp_path / "s.sock").exists, seconds=60)
        found = Supervisord(str(tmp_path / "s.sock"))
        wait_for(lambda: len(found.group("spare")) == 3)
        yield found
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def worker(settings: Settings) -> Iterator[Lease]:
    """A live worker that consumes from the default queue."""
    lease = Lease("worker", "w@here", ["default"], url=settings.database_url.get_secret_value())
    lease.start()
    wait_for(lambda: lease.renewed_at is not None)
    yield lease
    lease.stop()


def states(supervisord: Supervisord) -> dict[str, str]:
    return {each.name: each.state for each in supervisord.group("spare")}


def test_spares_come_with_the_backlog_and_go_when_they_have_drained(
    settings: Settings,
    supervisord: Supervisord,
    worker: Lease,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scaler = Scaler(settings, supervisord)
    monkeypatch.setattr(scaler, "_affordable", lambda: 9)
    scaler._rules = Rules(backlog=10, up_seconds=0.3, down_seconds=1.0)
    assert set(states(supervisord).values()) == {"STOPPED"}
    assert scaler.step() == 0
    with redis.Redis.from_url(settings.broker_url.get_secret_value()) as client:
        client.lpush("default", *["{}"] * 50)
        client.lpush("default\x06\x163", *["{}"] * 50)

        def step_until(condition, seconds: float = 30) -> None:
            deadline = time.monotonic() + seconds
            while not condition():
                assert time.monotonic() < deadline, states(supervisord)
                scaler.step()
                time.sleep(0.2)

        step_until(lambda: list(states(supervisord).values()).count("RUNNING") == 3)
        assert list(states(supervisord)) == ["worker_02", "worker_03", "worker_04"]
        for _ in range(5):
            assert scaler.step() == 0, "there are no more than were declared"
        client.delete("default", "default\x06\x163")
        step_until(lambda: states(supervisord)["worker_04"] == "STOPPING")
        assert states(supervisord)["worker_02"] == "RUNNING", "one at a time, the last first"
        step_until(lambda: set(states(supervisord).values()) == {"STOPPED"})
    assert scaler._info()["scaler"]["started"] == scaler._info()["scaler"]["stopped"] == 3
    log = (tmp_path / "s.log").read_text()
    assert "SIGKILL" not in log and log.count("stopped: worker_0") == 3


def test_what_cannot_be_seen_changes_nothing(
    settings: Settings, supervisord: Supervisord, worker: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRONBEAT_BROKER_URL", "redis://127.0.0.1:9/1")
    away = Settings.model_validate(
        {"database_url": settings.database_url, "broker_url": "redis://127.0.0.1:9/1"}
    )
    scaler = Scaler(away, supervisord)
    with pytest.raises(redis.exceptions.ConnectionError):
        scaler.step()
    assert set(states(supervisord).values()) == {"STOPPED"}
