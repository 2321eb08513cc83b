"""``webhook``: chat webhooks of the assistant, answered at once or in a task.

Requests come at a steady rate, whether or not the ones before were answered; a request's time
counts from when it was due. The API, the workers, PostgreSQL (whose commits wait for the disk),
Redis (with its append-only file), the channel's played API and the sender share this machine. Every
row says how many of its messages were answered, and how long that took from the webhook.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from cryptography.fernet import Fernet

from benchmarks import report
from benchmarks.programs import BINARIES, Trouble, Usage, running, wait_until
from benchmarks.report import Column, Figures
from benchmarks.servers import RESULTS, RUN, Servers, servers
from ironbeat import database
from ironbeat.embedded.temporary import free_port
from ironbeat.settings import get_settings
from ironbeat.workloads.assistant import accounts, sample
from ironbeat.workloads.assistant.trial.senders import App, trial_app

COLUMNS = (
    Column("mode", "mode"),
    Column("asks", "message"),
    Column("per_s", "requests/s"),
    Column("p50_ms", "response p50 ms", 1),
    Column("p99_ms", "p99 ms", 1),
    Column("max_ms", "max ms", 1),
    Column("answered", "answered"),
    Column("of", "of"),
    Column("answer_p50_ms", "answer p50 ms"),
    Column("answer_p99_ms", "answer p99 ms"),
    Column("api_cpu", "API CPU %"),
    Column("worker_cpu", "worker CPU %"),
)

CONNECTIONS = 64
WARM_SECONDS = 3.0
ANSWER_SECONDS = 45.0
SLOW_SECONDS = 2.0

TOOLS = f"""
import time
from ironbeat.workloads.assistant.tools import tool

@tool("wait", description="Takes {SLOW_SECONDS:g} s.", permission=None)
def wait() -> str:
    time.sleep({SLOW_SECONDS:g})
    return "done"
"""


@dataclass(frozen=True)
class Case:
    """One row: a mode, what the messages say, and how many come in a second."""

    later: bool
    asks: str
    per_s: float

    @property
    def name(self) -> str:
        """For the table."""
        return f"{'async' if self.later else 'sync'} {self.asks.split()[-1]} {self.per_s:g}/s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--rate", type=float, default=200.0, help="async requests/s (200)")
    parser.add_argument("--slow-rate", type=float, default=10.0, help="with the 2 s tool (10)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each row (20)")
    parser.add_argument(
        "--only", type=int, choices=(1, 2, 3, 4), help="one row instead of all four"
    )
    parser.add_argument("--api-workers", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--slow-workers", type=int, default=4, help="async with the 2 s tool")


def run(arguments: argparse.Namespace, peers: Sequence[str]) -> int:
    """Measure and print."""
    cases: Sequence[Case] = (
        Case(True, "/stock TPE-1", arguments.rate),
        Case(False, "/stock TPE-1", arguments.rate / 4),
        Case(True, "/run wait", arguments.slow_rate / 5),
        Case(False, "/run wait", arguments.slow_rate),
    )
    if arguments.only:
        cases = cases[arguments.only - 1 : arguments.only]
    results: dict[str, Figures] = {}
    with servers(["assistant"]) as found:
        for case in cases:
            report.say(case.name)
            results[case.name] = _measure(found, case, arguments)
    report.show(
        f"chat webhooks, {arguments.seconds:g} s each, {os.cpu_count()} cores, load {_load()}",
        results,
        COLUMNS,
        as_json=arguments.json,
    )
    return 0


def _measure(found: Servers, case: Case, arguments: argparse.Namespace) -> Figures:
    url = found.new_database()
    folder = found.folder / f"webhook-{secrets.token_hex(4)}"
    site = _with_tools(folder / "site")
    port, token = free_port(), secrets.token_hex(16)
    environment = {
        "IRONBEAT_DATABASE_URL": url,
        "IRONBEAT_BROKER_URL": found.redis_url(RUN),
        "IRONBEAT_RESULT_BACKEND": found.redis_url(RESULTS),
        "IRONBEAT_STATE_DIR": str(folder),
        "IRONBEAT_WORKLOADS": "assistant",
        "IRONBEAT_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "IRONBEAT_API_TOKEN": token,
        "IRONBEAT_API_PORT": str(port),
        "AI_ASSISTANT_USE_ASYNC": str(case.later).lower(),
        "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]),
        "LOG_LEVEL": "WARNING",
    }
    with found.redis_client(RUN) as client:
        client.flushall()
    slow = case.asks == "/run wait"
    workers = arguments.slow_workers if slow else arguments.workers
    api = [str(BINARIES / "ironbeat"), "api", "--workers", str(arguments.api_workers)]
    commands = [api, *([[*_worker(), str(n)] for n in range(workers)] if case.later else [])]
    try:
        with _channel_apis() as played, _settings(environment):
            app = _prepared(played)
            with running(commands, environment, folder / "programs") as programs:
                _wait_for_api(port, token, programs)
                pids = [program.pid for program in programs]
                # Everybody has met the first messages, connections and caches are warm.
                asyncio.run(_send(port, app, case, WARM_SECONDS, 1_000_000))
                time.sleep(1.0)
                before = [Usage.of([pid]) for pid in pids]
                began = time.monotonic()
                times = asyncio.run(_send(port, app, case, arguments.seconds, 2_000_000))
                took = time.monotonic() - began
                used = [
                    100 * (Usage.of([pid]).cpu - b.cpu) / took
                    for pid, b in zip(pids, before, strict=True)
                ]
                return {
                    "mode": "async" if case.later else "sync",
                    "asks": case.asks,
                    "per_s": len(times) / took,
                    "p50_ms": report.percentile(times, 0.5),
                    "p99_ms": report.percentile(times, 0.99),
                    "max_ms": max(times),
                    **_answered(url, len(times)),
                    "api_cpu": used[0],
                    "worker_cpu": sum(used[1:]),
                }
    finally:
        database.dispose()
        found.drop_database(url)


def _load() -> str:
    """How many processes wanted a core in the last minute: others' work spoils the figures."""
    return f"{os.getloadavg()[0]:.1f}"


def _worker() -> list[str]:
    """A worker as supervisord starts it, but for its name."""
    return [str(BINARIES / "ironbeat"), "worker", "--pool", "ironbeat", "-c", "1", "--name"]


def _with_tools(site: Path) -> Path:
    """A package with the slow tool, as an installer would lay it down."""
    metadata = site / "bench_tools-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "bench_tools.py").write_text(TOOLS)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-tools\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[ironbeat.assistant.tools]\nwait = bench_tools\n")
    return site


@contextmanager
def _channel_apis() -> Iterator[str]:
    """The channels' APIs, played in a process of their own."""
    command = [sys.executable, "-m", "ironbeat.workloads.assistant.trial.apis"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as playing:
        assert playing.stdout is not None
        yield playing.stdout.readline().strip()
        playing.communicate()


@contextmanager
def _settings(environment: dict[str, str]) -> Iterator[None]:
    """This process uses the same settings as the programs."""
    kept = dict(os.environ)
    os.environ.update(environment)
    get_settings.cache_clear()
    accounts.forget()
    yield
    os.environ.clear()
    os.environ.update(kept)
    get_settings.cache_clear()


def _prepared(played: str) -> App:
    sample.load(scale=1000, progress=lambda done, total: None)
    app = trial_app("telegram", played)
    options = {**app.options, "default_permissions": ["inventory.read"]}
    accounts.save(app.channel, app.app_id, app.secrets, options)
    return app


def _wait_for_api(port: int, token: str, programs: Sequence[object]) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/tasks", headers={"Authorization": f"Bearer {token}"}
    )

    def answers() -> bool:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status == 200
        except OSError:
            return False

    wait_until(answers, 90, "the API", programs, pause=0.2)  # type: ignore[arg-type]
    # Each of its processes imports Celery by itself.
    for _ in range(20):
        answers()
    time.sleep(5.0)


async def _send(port: int, app: App, case: Case, seconds: float, first: int) -> list[float]:
    """Post messages at a steady rate; returns each one's milliseconds from when it was due."""
    free: asyncio.Queue[_Connection] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        free.put_nowait(_Connection(port))
    count = int(seconds * case.per_s)
    began = time.perf_counter() + 0.1

    async def one(number: int) -> float:
        due = began + number / case.per_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        webhook = app.message(case.asks, number=first + number, user=str(10_000 + number % 500))
        connection = await free.get()
        try:
            status = await connection.post(webhook.path, webhook.headers, webhook.body)
        finally:
            free.put_nowait(connection)
        if status != 200:
            raise Trouble(f"a webhook was answered with {status}")
        return (time.perf_counter() - due) * 1000

    times = await asyncio.gather(*(one(number) for number in range(count)))
    while not free.empty():
        free.get_nowait().close()
    return list(times)


class _Connection:
    """A connection that is kept open, speaking just enough HTTP to cost little."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, headers: object, body: bytes) -> int:
        """Post, and return the status."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        lines = "".join(f"{name}: {value}\r\n" for name, value in dict(headers).items())  # type: ignore[call-overload]
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{lines}"
        writer.write(head.encode() + b"\r\n" + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = answer.partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length or 0))
        return int(answer.split(b" ", 2)[1])

    def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()


def _answered(url: str, sent: int) -> Figures:
    """How many of the measured messages were answered, and how long it took."""
    query = (
        "SELECT (extract(epoch FROM a.ended_at - m.received_at) * 1000)::float8"
        " FROM assistant.messages AS m JOIN assistant.answers AS a ON a.message_id = m.id"
        " WHERE a.state IN ('confirmed', 'returned')"
        " AND split_part(m.external_id, ':', 2)::bigint >= 2000000"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        deadline = time.monotonic() + ANSWER_SECONDS
        times: list[float] = []
        while len(times) < sent and time.monotonic() < deadline:
            times = [row[0] for row in connection.execute(query).fetchall()]
            time.sleep(0.2)
    return {
        "answered": len(times),
        "of": sent,
        "answer_p50_ms": report.percentile(times, 0.5),
        "answer_p99_ms": report.percentile(times, 0.99),
    }
