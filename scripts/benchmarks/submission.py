"""``submit``: handing many tasks over from one process.

Ironbeat's ``TaskManager.submit_many`` returns when the runs are committed to the ledger and their
messages lie in the broker. Celery's nearest thing is a loop of ``apply_async`` inside a producer's
``batch()``: the broker alone has the tasks then.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import psycopg

from benchmarks import producer, report
from benchmarks.programs import Trouble
from benchmarks.report import Column, Figures
from benchmarks.servers import RUN, Servers, servers
from benchmarks.systems import ALL, Place

COLUMNS = (
    Column("runs_per_s", "tasks/s"),
    Column("cpu_us_per_run", "CPU µs/task"),
    Column("single_per_s", "one by one/s"),
    Column("committed", "committed"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)


def run(arguments: argparse.Namespace, peers: Sequence[str]) -> int:
    """Measure and print."""
    names = ["ironbeat", *peers]
    rounds: dict[str, list[Figures]] = {name: [] for name in names}
    with servers() as found:
        for number in range(arguments.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                report.say(f"round {number + 1}: {name}")
                rounds[name].append(_measure(found, name, arguments.tasks))
    report.show(
        f"{arguments.tasks:,} tasks handed over by one process",
        {name: report.medians(rounds[name]) for name in names},
        COLUMNS,
        as_json=arguments.json,
    )
    return 0


def _measure(found: Servers, name: str, tasks: int) -> Figures:
    database = found.new_database()
    place = Place(found, found.folder / name, database)
    place.clean()
    system = ALL[name]
    system.commands(place, 1)
    try:
        figures = producer.produce(
            system.module, system.environment(place), "many", tasks, log=place.folder / "log"
        )
        if system.left(found.redis_client(RUN)) != tasks + producer.SINGLES:
            raise Trouble(f"{name}: the broker holds {system.left(found.redis_client(RUN))} tasks")
        with psycopg.connect(database) as connection:
            row = connection.execute("SELECT count(*) FROM ironbeat.runs").fetchone()
        return {
            "runs_per_s": figures["per_s"],
            "cpu_us_per_run": figures["cpu_us"],
            "single_per_s": figures["single_per_s"],
            "committed": row[0] if row else 0,
        }
    finally:
        found.drop_database(database)
