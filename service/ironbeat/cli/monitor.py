"""``ironbeat monitor``: a live screen of queues, workers, runs and schedules."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ironbeat.cli.output import JsonFlag, plain

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ironbeat.runs.model import Run
    from ironbeat.watch import Status

app = typer.Typer()


class Sort(StrEnum):
    """The order of the queues on the screen."""

    NAME = "name"
    LENGTH = "length"
    AGE = "age"


# The column of the queues on the screen that each is; none: as they are declared.
SORTED_BY = {Sort.NAME: "", Sort.LENGTH: "waiting", Sort.AGE: "oldest"}

NEWEST_RUNS = 12
SCHEDULES_SHOWN = 15


@app.command()
def monitor(
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    count: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many looks; else with Ctrl-C.")
    ] = None,
    sort: Annotated[
        Sort, typer.Option(help="Queues by name, the longest first, or the oldest message first.")
    ] = Sort.NAME,
    only: Annotated[
        str | None,
        typer.Option(
            help="Only what has each of these words in a name: queue, task, worker, schedule, or"
            " a run's id or state."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Watch queues, workers, runs and schedules as they change; --json: a line for each look."""
    if as_json:
        _print_lines(interval, count)
    elif sys.stdout.isatty():
        from ironbeat.cli.live import live_screen
        from ironbeat.cli.screen import started

        live_screen(started(SORTED_BY[sort], only), interval, count)
    else:
        _print_pages(interval, count or 1, sort, only)


app.command("monitor-cmd", hidden=True, help="The former name of `monitor`.")(monitor)


def _look() -> tuple[Status, list[Run]]:
    from ironbeat.cli.runs import ledger
    from ironbeat.runs.model import Filters, LedgerUnavailable
    from ironbeat.watch import status

    seen = status(window_seconds=600, schedule_limit=SCHEDULES_SHOWN, failure_limit=5)
    try:
        newest = ledger().find(Filters(limit=NEWEST_RUNS)) if seen.database else []
    except LedgerUnavailable:
        newest = []
    return seen, newest


def _print_lines(interval: float, count: int | None) -> None:
    from ironbeat.cli.runs import run_fields
    from ironbeat.cli.status import status_fields

    for _ in _ticks(interval, count):
        seen, newest = _look()
        line = status_fields(seen) | {"newest": [run_fields(run) for run in newest]}
        print(json.dumps(plain(line), ensure_ascii=False), flush=True)


def _print_pages(interval: float, count: int, sort: Sort, only: str | None) -> None:
    from ironbeat.cli.output import console

    out = console()
    for _ in _ticks(interval, count):
        out.print(page(*chosen(*_look(), sort, only)))


def _ticks(interval: float, count: int | None) -> Any:
    """Yield at once and then every ``interval`` seconds, whatever the caller does in between."""
    due = time.monotonic()
    made = 0
    try:
        while count is None or made < count:
            yield made
            made += 1
            if count is not None and made >= count:
                return
            due = max(due + interval, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
    except KeyboardInterrupt:
        # The one way to end the screen; nothing has gone wrong.
        return


def chosen(
    seen: Status, newest: list[Run], sort: Sort, only: str | None
) -> tuple[Status, list[Run]]:
    """What a page shows of a look: queues in their order, and only what was asked for. Pure."""
    from ironbeat.cli.looks import Look, Question
    from ironbeat.cli.screen import Section, matches, ordered, rows, started, words

    state, look = started(SORTED_BY[sort], only), Look(Question(), seen, tuple(newest))
    wanted = words(only or "")

    def kept(section: Section) -> list[Any]:
        found = rows(section, state.place, look)
        return [row for row in found if matches(row, wanted)]

    queues = kept(Section.QUEUES)
    if order := state.orders.get(Section.QUEUES):
        queues = ordered(Section.QUEUES, queues, order, seen.at)
    return replace(
        seen,
        queues=tuple(row.item for row in queues),
        schedules=tuple(row.item for row in kept(Section.SCHEDULES)),
    ), [row.item for row in kept(Section.RUNS)]


def page(seen: Status, newest: list[Run]) -> RenderableType:
    """One look: the most urgent first, so that a low screen cuts off the least."""
    from rich.console import Group
    from rich.text import Text

    from ironbeat.cli import views
    from ironbeat.cli.output import moment
    from ironbeat.cli.runs import runs_table

    parts: list[Any] = [
        Text(f"{moment(seen.at)}   Ctrl-C ends", style="dim"),
        views.headline(seen.health),
        *views.problems(seen),
    ]
    if seen.broken:
        parts += ["", views.limits(seen.broken)]
    parts += ["", views.queue_bars(seen.queues), "", views.workers(seen), ""]
    parts += [views.stores(seen), views.outcomes(seen), ""]
    parts += [runs_table(newest, "Newest runs"), "", views.schedules(seen)]
    return Group(*parts)
