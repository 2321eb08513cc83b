"""The programs as supervisord starts them: one process each, stopped by TERM, seen by others."""

import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ironbeat.cli.failures import ExitStatus
from ironbeat.settings import get_settings

PROGRAM = [sys.executable, "-c", "from ironbeat.cli import main; main()"]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(settings, tmp_path: Path) -> Iterator[Start]:
    """Start ``ironbeat ARGUMENTS`` with this test's settings; what still runs is killed after."""
    started: list[subprocess.Popen[str]] = []

    def call(*arguments: str) -> subprocess.Popen[str]:
        log = (tmp_path / f"{arguments[0]}-{len(started)}.log").open("w")
        with log:
            process = subprocess.Popen(
                [*PROGRAM, *arguments], stdout=log, stderr=log, text=True, env=dict(os.environ)
            )
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.wait(10)


def eventually(holds: Callable[[], object], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_worker_and_beat_work_answer_and_stop_by_themselves(start, run, tmp_path: Path) -> None:
    pidfiles = [tmp_path / "worker.pid", tmp_path / "beat.pid"]
    worker = start("worker", "--name", "7", "--pidfile", str(pidfiles[0]))
    beat = start("beat", "--pidfile", str(pidfiles[1]))
    eventually(lambda: run_health(run)["status"] == "healthy")
    # The supervisor's process is the program itself.
    assert [path.read_text().strip() for path in pidfiles] == [str(worker.pid), str(beat.pid)]

    told = run("test", "--message", "早安", "--timeout", "30", "--json")
    assert told["answer"] == "早安"
    assert told["worker"] == f"worker-07@{socket.gethostname()}"

    second = start("beat", "--pidfile", str(pidfiles[1]))
    assert second.wait(30) == ExitStatus.REFUSED
    for process in (worker, beat):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert [path.exists() for path in pidfiles] == [False, False]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_of_celerys_own_pools_works_too(start, run, pool) -> None:
    worker = start("worker", "--name", pool, "--pool", pool, "--concurrency", "2")
    told = run("test", "--timeout", "40", "--json")
    assert told["worker"] == f"{pool}@{socket.gethostname()}"
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def run_health(run):
    with contextlib.suppress(AssertionError):
        return run("health", "--json")
    return {"status": "unhealthy"}


def test_flower_wants_its_password_and_shows_it_to_nobody(start, run, monkeypatch) -> None:
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "admin:s3cret-word")
    port = free_port()
    flower = start("flower", "--port", str(port))

    def answer(path: str, password: str | None = None) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
        if password:
            word = base64.b64encode(f"admin:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    eventually(lambda: answer("/"))
    assert answer("/") == answer("/", "guess") == 401
    assert answer("/", "s3cret-word") == 200
    # Metrics and health of Flower's own are for nobody else either.
    assert answer("/api/workers") == 401
    process = psutil.Process(flower.pid)
    assert "s3cret-word" not in " ".join(process.cmdline())
    assert [c.laddr.ip for c in process.net_connections("tcp") if c.status == "LISTEN"] == [
        "127.0.0.1"
    ]
    flower.send_signal(signal.SIGTERM)
    assert flower.wait(20) == 0
    assert list(get_settings().state_dir.glob("flower.db*"))


def test_flower_never_runs_without_a_password(settings, run) -> None:
    assert "FLOWER_BASIC_AUTH" in run("flower", exit_status=ExitStatus.SETTINGS)


def test_the_api_serves_from_this_process_and_stops(start, run, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("IRONBEAT_API_TOKEN", "t0ken-of-this-test-only")
    port, pidfile = free_port(), tmp_path / "api.pid"
    api = start("api", "--port", str(port), "--workers", "2", "--pidfile", str(pidfile))

    def answer(path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    eventually(lambda: answer("/metrics") == 200)
    # No worker and no beat: unhealthy, and said so.
    assert answer("/health") == 503
    assert answer("/api/runs") == 401
    assert pidfile.read_text().strip() == str(api.pid)
    assert "t0ken-of-this-test-only" not in " ".join(psutil.Process(api.pid).cmdline())
    api.send_signal(signal.SIGTERM)
    assert api.wait(30) == 0
    assert not pidfile.exists()


def test_the_api_never_runs_without_a_token(settings, run) -> None:
    told = run("api", "--port", str(free_port()), exit_status=ExitStatus.SETTINGS)
    assert "IRONBEAT_API_TOKEN" in told


@pytest.mark.parametrize("program", ["flower", "api"])
def test_a_taken_port_is_named_with_the_setting_that_changes_it(
    settings, run, monkeypatch, program
) -> None:
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "admin:s3cret-word")
    monkeypatch.setenv("IRONBEAT_API_TOKEN", "t0ken-of-this-test-only")
    get_settings.cache_clear()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = subprocess.run(
            [*PROGRAM, program, "--port", port],
            capture_output=True,
            text=True,
            env=dict(os.environ),
            timeout=60,
        )
    assert ran.returncode == ExitStatus.REFUSED, ran.stderr
    assert port in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--concurrency", "4"], "WORKER_COUNT"),
        (["--pool", "gevent"], "pip install gevent"),
        (["--pool", "fibers"], "threads"),
        (["--concurrency", "0"], "greater than or equal to 1"),
        (["--loglevel", "loud"], "debug"),
        (["--queues", "default,no-such-queue", "--pool", "solo"], "no-such-queue"),
    ],
)
def test_a_worker_that_cannot_be_is_refused_before_it_starts(settings, arguments, told) -> None:
    ran = subprocess.run(
        [*PROGRAM, "worker", *arguments],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=60,
    )
    assert ran.returncode == ExitStatus.USAGE, ran.stderr
    assert told in ran.stderr and "Traceback" not in ran.stderr


def test_a_worker_killed_by_nine_leaves_a_pidfile_that_is_not_in_the_way(
    start, tmp_path: Path
) -> None:
    path = tmp_path / "worker.pid"
    first = start("worker", "--pidfile", str(path))
    eventually(lambda: path.exists() and path.read_text().strip() == str(first.pid))
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    second = start("worker", "--pidfile", str(path))
    eventually(lambda: path.read_text().strip() == str(second.pid))
    assert second.poll() is None
