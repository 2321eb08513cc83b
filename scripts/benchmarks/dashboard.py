"""``dashboard``: how soon the pages come with a long history and many schedules.

The database gets a million ended runs over the last 30 days, 20,000 live ones, 100,000 schedules
and a week of noted queues; then each page is asked for again and again over HTTP, by one who is
logged in. A page's time is from the request to its last byte, measured at the client. The first
screen is then opened in a real Chromium until its first content is painted and until everything is
loaded: after the login's page, as everybody sees it, and by a browser that has just been started.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import time
from collections.abc import Sequence

import httpx
import psycopg
from cryptography.fernet import Fernet

from benchmarks import browser, report
from benchmarks.programs import BINARIES, Trouble, running
from benchmarks.report import Column, Figures
from benchmarks.servers import RESULTS, RUN, Servers, servers
from ironbeat.embedded.temporary import free_port
from ironbeat.runs import pruning

COLUMNS = (
    Column("first", "first, ms"),
    Column("p50", "median, ms"),
    Column("p95", "p95, ms"),
    Column("worst", "worst, ms"),
    Column("kb", "kB"),
)
#: The first screen's line.
FIRST_SCREEN_MS = 300.0
FIRST_SCREEN = "after the login, in Chromium: loaded"
PASSWORD = secrets.token_urlsafe(16)
PAGES = {
    "overview": "/",
    "overview, its live part": "/part/overview",
    "late fires": "/part/late",
    "plots": "/data/queues?hours=168",
    "schedules": "/schedules",
    "schedules, next first": "/schedules?order=next",
    "schedules, searched": "/schedules?q=bench-09999",
    "next 24 hours": "/schedules?view=timeline",
    "one schedule": "/schedules/bench-000042",
    "runs": "/runs",
    "runs, failed": "/runs?state=unsuccessful&period=24h",
    "runs of a schedule": "/runs?schedule=bench-000042&period=7d",
    "between 03:00 and 04:00": "/between",
    "queue": "/queues/default",
    "dead letters": "/dead",
}

_SCHEDULES = """
INSERT INTO ironbeat.schedules (name, workload, task, kind, expression, timezone, anchor_at,
    next_scheduled_for, next_fire_at, last_fired_at)
SELECT 'bench-' || lpad(n::text, 6, '0'), 'bench', 'bench.task' || n %% 50, 'interval',
    (60 + n %% 86400) || 's', 'Asia/Taipei', now(),
    now() + make_interval(secs => 60 + n %% 86400), now() + make_interval(secs => 60 + n %% 86400),
    now() - make_interval(secs => n %% 3600)
FROM generate_series(1, %(schedules)s) AS n
"""
_RUNS = """
INSERT INTO ironbeat.run_history (id, created_at, task, workload, queue, state, schedule_id,
    schedule_name, scheduled_for, published_at, started_at, ended_at, attempt, worker, argsrepr,
    kwargsrepr, error)
SELECT gen_random_uuid()::text, at, 'bench.task' || n %% 50, 'bench', 'default',
    CASE WHEN n %% 50 = 0 THEN 'failed' WHEN n %% 5000 = 1 THEN 'dead' ELSE 'succeeded' END,
    1 + n %% %(schedules)s, 'bench-' || lpad((1 + n %% %(schedules)s)::text, 6, '0'), at, at,
    at + interval '10 ms', at + make_interval(secs => 0.01 + (n %% 100) * 0.02), 1, 'worker@bench',
    '(' || n || ',)', '{}', CASE WHEN n %% 50 = 0 THEN 'RuntimeError: number ' || n END
FROM (SELECT n, now() - make_interval(secs => 1 + n * (%(days)s * 86400.0 / %(runs)s)) AS at
      FROM generate_series(%(from)s::bigint, %(to)s::bigint) AS n) AS made
"""
_LIVE = """
INSERT INTO ironbeat.runs (id, created_at, task, workload, queue, state)
SELECT gen_random_uuid()::text, now(), 'bench.task' || n %% 50, 'bench', 'default', 'published'
FROM generate_series(1, %(live)s) AS n
"""
_FIRES = """
INSERT INTO ironbeat.fires (schedule_id, scheduled_for, run_id, fired_at)
SELECT schedule_id, scheduled_for, id, started_at FROM ironbeat.run_history
WHERE created_at > now() - interval '2 days' ON CONFLICT DO NOTHING
"""
_SAMPLES = """
WITH slots AS (
    INSERT INTO ironbeat.samples (at)
    SELECT date_bin('30 seconds', now(), '2000-01-01 00:00Z') - n * interval '30 seconds'
    FROM generate_series(1, 20160) AS n ON CONFLICT DO NOTHING RETURNING at
), queues AS (
    INSERT INTO ironbeat.queue_samples (at, queue, length, oldest)
    SELECT at, 'queue' || q, (random() * 40)::integer, random() * 20 FROM slots,
        generate_series(1, 10) AS q
)
INSERT INTO ironbeat.limit_samples (at, name, value, ok)
SELECT at, name, random() * 100, random() < 0.99 FROM slots,
    unnest(ARRAY['success_rate', 'mean_run_time', 'queue_length', 'worker_memory', 'beat_response',
        'celery_worker_down', 'high_queue_length', 'high_error_rate', 'task_running_long',
        'memory_high', 'worker_silent', 'schedule_missed', 'dead_letters', 'processes_stuck'])
        AS name
"""
DAYS = 30
BATCH = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--runs", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--schedules", type=int, default=100_000, metavar="N")
    parser.add_argument("--live", type=int, default=20_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="requests of each page")


def run(arguments: argparse.Namespace, peers: Sequence[str]) -> int:
    """Fill, measure, print; 1 if the first screen took longer than its line."""
    with servers() as found:
        url = found.new_database()
        _fill(url, arguments)
        results = _measure(found, url, arguments.rounds)
    report.show(
        f"The dashboard with {arguments.runs:,} runs and {arguments.schedules:,} schedules, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        results,
        COLUMNS,
        as_json=arguments.json,
    )
    shown = results.get(FIRST_SCREEN, results["overview"])
    return int(shown["p95"] >= FIRST_SCREEN_MS)


def _fill(url: str, arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    sizes = {name: getattr(arguments, name) for name in ("runs", "schedules", "live")}
    with psycopg.connect(url, autocommit=True) as connection:
        _make_partitions(connection)
        connection.execute(_SCHEDULES, sizes)
        for start in range(1, arguments.runs + 1, BATCH):
            report.say(f"{start - 1:,} of {arguments.runs:,} runs")
            end = min(arguments.runs, start + BATCH - 1)
            connection.execute(_RUNS, sizes | {"days": DAYS - 1, "from": start, "to": end})
        for statement in (_LIVE, _FIRES, _SAMPLES):
            connection.execute(statement, sizes)
        connection.execute("VACUUM (ANALYZE)")
    report.say(f"filled in {time.monotonic() - began:.0f} s")


def _make_partitions(connection: psycopg.Connection) -> None:
    """As a suite has them that has run for a month: one a day."""
    rows = connection.execute(
        "SELECT (now() AT TIME ZONE 'UTC')::date - n FROM generate_series(2, %s) AS n", (DAYS,)
    )
    for (day,) in rows.fetchall():
        pruning.make_partition(connection, day)


def _measure(found: Servers, url: str, rounds: int) -> dict[str, Figures]:
    port = free_port()
    environment = {
        "IRONBEAT_DATABASE_URL": url,
        "IRONBEAT_BROKER_URL": found.redis_url(RUN),
        "IRONBEAT_RESULT_BACKEND": found.redis_url(RESULTS),
        "IRONBEAT_STATE_DIR": str(found.folder),
        "IRONBEAT_WORKLOADS": "marketplace",
        "IRONBEAT_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "IRONBEAT_API_TOKEN": secrets.token_hex(16),
        "IRONBEAT_API_PORT": str(port),
        "IRONBEAT_DASHBOARD_OPERATOR_PASSWORD": PASSWORD,
        "LOG_LEVEL": "WARNING",
    }
    command = [str(BINARIES / "ironbeat"), "api", "--workers", "1"]
    with (
        running([command], environment, found.folder / "programs"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        _log_in(http)
        results = {}
        for name, path in PAGES.items():
            report.say(name)
            results[name] = _times(http, path, rounds)
        if browser.path() is None:
            report.say("no Chromium is installed (scripts/browser): not measured in one")
        else:
            report.say("the first screen in Chromium")
            results |= _in_chromium(http, rounds)
        return results


def _in_chromium(http: httpx.Client, rounds: int) -> dict[str, Figures]:
    cookies = [(cookie.name, cookie.value or "") for cookie in http.cookies.jar]
    address = str(http.base_url)
    login = browser.visits(f"{address}/", cookies, rounds, before=f"{address}/login")
    fresh = browser.visits(f"{address}/", cookies, rounds)
    return {
        "after the login, in Chromium: painted": _figures([each.painted for each in login]),
        FIRST_SCREEN: _figures([each.loaded for each in login]),
        "in a Chromium just started: loaded": _figures([each.loaded for each in fresh]),
    }


def _log_in(http: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            form = http.get("/login").text
            break
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise Trouble("the API does not come up") from None
            time.sleep(0.2)
    token = re.search(r'name="token" value="([^"]+)"', form)
    if token is None:
        raise Trouble("there is no form to log in with")
    fields = {"token": token[1], "name": "operator", "password": PASSWORD, "next": "/"}
    if http.post("/login", data=fields).status_code != 303:
        raise Trouble("the login was refused")
    # Celery is imported in the background; an idle server is measured more evenly.
    time.sleep(8)


def _times(http: httpx.Client, path: str, rounds: int) -> Figures:
    times: list[float] = []
    size = 0
    for _ in range(rounds):
        began = time.perf_counter()
        answer = http.get(path)
        times.append(1000 * (time.perf_counter() - began))
        if answer.status_code != 200:
            raise Trouble(f"{path}: {answer.status_code} {answer.text[:500]}")
        size = len(answer.content)
    return {**_figures(times), "kb": size / 1000}


def _figures(times: Sequence[float]) -> Figures:
    return {
        "first": times[0],
        "p50": report.percentile(times, 0.5),
        "p95": report.percentile(times, 0.95),
        "worst": max(times),
    }
