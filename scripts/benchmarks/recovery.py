"""``recovery``: seconds from ``kill -9`` of a whole worker until its task runs again.

One worker takes a task that lasts for minutes; a second worker is started and waits idle; then the
first one is killed with all its children. Nobody is told. What takes longer than ``--patience`` is
given up.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from benchmarks import producer, report
from benchmarks.programs import Program, Trouble, running, wait_until
from benchmarks.report import Column, Figures
from benchmarks.servers import Servers, servers
from benchmarks.systems import ALL, Place, System

TASK_SECONDS = 3600.0
# The second worker shall be up, and have been for a while, as it would be in production.
SETTLE_SECONDS = 15.0

COLUMNS = (
    Column("recovered_s", "runs again after s", 1),
    Column("waited_s", "waited s"),
    Column("recoveries", "rounds recovered"),
    Column("rounds", "rounds"),
    Column("guarantees", "when a worker is killed"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--patience", type=float, default=60.0, help="give up after so many seconds (60)"
    )


def run(arguments: argparse.Namespace, peers: Sequence[str]) -> int:
    """Measure and print; returns 1 when Ironbeat did not recover."""
    names = ["ironbeat", *peers]
    rounds: dict[str, list[Figures | None]] = {name: [] for name in names}
    with servers() as found:
        for number in range(arguments.rounds):
            for name in names if number % 2 == 0 else reversed(names):
                report.say(f"round {number + 1}: {name}")
                measurement = partial(measure, found, ALL[name], arguments.patience)
                rounds[name].append(report.attempt(name, measurement))
    results = {}
    for name in names:
        results[name] = report.median_of_finished(rounds[name])
        results[name]["recoveries"] = sum(
            figures is not None and figures["recovered_s"] is not None for figures in rounds[name]
        )
        results[name]["rounds"] = arguments.rounds
        results[name]["guarantees"] = ALL[name].guarantees
    report.show(
        "kill -9 of a whole worker until its task runs again on another one",
        results,
        COLUMNS,
        as_json=arguments.json,
    )
    return int(results["ironbeat"]["recoveries"] < arguments.rounds)


def measure(found: Servers, system: System, patience: float) -> Figures:
    """One round of one system: ``recovered_s``, ``None`` after ``patience`` seconds."""
    name = system.name
    database = found.new_database()
    place = Place(found, found.folder / name, database)
    place.clean()
    environment = system.environment(place)
    notes = place.notes
    commands = system.commands(place, 2)
    # Where one program has all processes, a second program is the second worker.
    first, second = (commands[0], commands[-1])
    try:
        with running([first], environment, place.folder / "first") as victims:
            producer.produce(
                system.module, environment, "lasting", 1, TASK_SECONDS, log=place.folder / "log"
            )
            wait_until(lambda: notes.count() == 1, 90, f"{name} begins", victims)
            with running([second], environment, place.folder / "second") as heirs:
                time.sleep(SETTLE_SECONDS)
                victims[0].kill()
                killed = time.monotonic()
                with suppress(Trouble):
                    wait_until(lambda: notes.count() > 1, patience, f"{name} recovers", heirs)
                waited = time.monotonic() - killed
                _end_at_once(heirs)
        again = [note.began for note in notes.read(1)]
        return {"recovered_s": again[0] - killed if again else None, "waited_s": waited}
    finally:
        found.drop_database(database)


def _end_at_once(programs: Sequence[Program]) -> None:
    """Nobody waits for the hour that the task would still take."""
    for program in programs:
        if not program.ended:
            program.kill()
