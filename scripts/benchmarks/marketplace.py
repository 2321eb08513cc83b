"""``marketplace``: each of the eleven tasks once, over a marketplace of so many users.

With a million users there are a million tasks, coupons and accounts of points, 0.7 million chats
and 2.5 million messages; the sample leaves something due for each task. A task runs in a process of
its own, so that its peak of memory is its own. ``more`` says that its budget was spent before all
that was due was done: the next fire goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import psycopg

from benchmarks import report
from benchmarks.programs import Trouble
from benchmarks.report import Column, Figures
from benchmarks.servers import servers
from benchmarks.systems import Place

COLUMNS = (
    Column("rows", "rows of its table"),
    Column("seconds", "seconds", 2),
    Column("rss_mb", "peak RSS MB"),
    Column("did", "did"),
)

#: Each task with the table whose rows it looks through.
TASKS = {
    "process_customer_service_queue": "customer_queue",
    "auto_end_timeout_chats": "chats",
    "send_timeout_warnings": "chats",
    "cancel_expired_tasks": "tasks",
    "check_expired_coupons": "coupons",
    "check_expired_invitation_codes": "invitation_codes",
    "check_expired_points": "points_lots",
    "check_and_end_activities": "activities",
    "update_all_users_statistics": "users",
    "cleanup_long_inactive_chats": "chat_messages",
    "update_featured_task_experts_response_time": "task_experts",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--users", type=int, default=1_000_000, metavar="N")


def run(arguments: argparse.Namespace, peers: Sequence[str]) -> int:
    """Load, run each task once, print; 1 if one took 10 s or longer."""
    with servers(("marketplace",)) as found:
        place = Place(found, found.folder / "marketplace", found.new_database())
        place.clean()
        environment = {**os.environ, **place.environment(), "IRONBEAT_WORKLOADS": "marketplace"}
        report.say(f"loading {arguments.users:,} users")
        began = time.monotonic()
        _child(environment, "load", str(arguments.users))
        report.say(f"loaded in {time.monotonic() - began:.0f} s")
        results: dict[str, Figures] = {}
        for name, table in TASKS.items():
            report.say(name)
            results[name] = _child(environment, "run", name)
            results[name]["rows"] = _rows(place.database_url, table)
    report.show(
        f"The marketplace's tasks with {arguments.users:,} users",
        results,
        COLUMNS,
        as_json=arguments.json,
    )
    return int(any(figures["seconds"] >= 10 for figures in results.values()))


def _rows(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        query = "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = %s::regclass"
        row = connection.execute(query, [f"marketplace.{table}"]).fetchone()
    return int(row[0]) if row else 0


def _child(environment: dict[str, str], *what: str) -> Figures:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.marketplace", *what],
        capture_output=True,
        text=True,
        env=environment,
    )
    if done.returncode != 0:
        raise Trouble(f"{what}: {done.stderr[-3000:]}")
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def _load(users: str) -> Figures:
    from ironbeat.workloads.marketplace import sample

    return dict(sample.load(scale=int(users), progress=lambda _done, _total: None))


def _run(name: str) -> Figures:
    from ironbeat.app import current_app

    task = current_app().tasks[f"app.celery_tasks.{name}"]
    began = time.perf_counter()
    did = task()
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    text = ", ".join(f"{key} {value}" for key, value in did.items() if value not in (0, False))
    return {"seconds": seconds, "rss_mb": peak, "did": text}


if __name__ == "__main__":
    print(json.dumps({"load": _load, "run": _run}[sys.argv[1]](sys.argv[2])))
