"""``ironbeat runs|task|cancel|retry``: what ran, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from ironbeat.cli.failures import CommandError, ExitStatus, not_found
from ironbeat.cli.output import JsonFlag, clock, duration, moment, narrow, show, table, words
from ironbeat.cli.when import ACCEPTED, span

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from ironbeat.runs.ledger import Ledger
    from ironbeat.runs.model import Run

app = typer.Typer()

RunId = Annotated[
    str, typer.Argument(metavar="ID", help="The run's id, or as much of it as no other shares.")
]

# Shorter than this, a beginning would match by accident.
SHORTEST_BEGINNING = 6


class RunState(StrEnum):
    """The states of a run, and three words for several of them."""

    PENDING = "pending"
    PUBLISHED = "published"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    DEAD = "dead"
    LIVE = "live"
    ENDED = "ended"
    UNSUCCESSFUL = "unsuccessful"


def ledger() -> Ledger:
    """The ledger of this installation."""
    from ironbeat.runs.ledger import Ledger
    from ironbeat.settings import get_settings

    return Ledger(lease_seconds=get_settings().lease_seconds)


def find_run(book: Ledger, id: str) -> Run:
    """The run with this id, or the only one whose id begins so. Raises :class:`CommandError`."""
    from ironbeat.runs.model import RunNotFound

    try:
        return book.get(id)
    except RunNotFound:
        pass
    hint = "`ironbeat runs` lists runs; ended ones are kept for `history_days`."
    if len(id) < SHORTEST_BEGINNING:
        raise not_found("run", id, hint)
    matches = book.ids_beginning(id, limit=5)
    if not matches:
        raise not_found("run", id, hint)
    if len(matches) > 1:
        raise CommandError(
            f"{id!r} is ambiguous: {', '.join(matches[:4])}{' …' if len(matches) > 4 else ''}",
            "Give more of the id.",
            ExitStatus.USAGE,
        )
    return book.get(matches[0])


def run_fields(run: Run) -> dict[str, Any]:
    """A run as JSON shows it: what happened, without the message it travelled in."""
    return {
        "id": run.id,
        "task": run.task,
        "state": run.state,
        "workload": run.workload,
        "queue": run.queue,
        "priority": run.priority,
        "schedule": run.schedule_name,
        "scheduled_for": run.scheduled_for,
        "created_at": run.created_at,
        "published_at": run.published_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "seconds": run.seconds,
        "worker": run.worker,
        "attempt": run.attempt,
        "retries": run.retries,
        "crashes": run.crashes,
        "args": run.argsrepr,
        "kwargs": run.kwargsrepr,
        "progress": run.progress,
        "result": run.result,
        "error": run.error,
        "traceback": run.traceback,
        "reason": run.reason,
        "eta": run.eta,
        "expires_at": run.expires_at,
        "idempotency_key": run.idempotency_key,
        "parent_id": run.parent_id,
        "root_id": run.root_id,
        "group_id": run.group_id,
        "durable": run.durable,
        "attempts": run.attempts,
        "cancel_requested_at": run.cancel_requested_at,
    }


def _states(wanted: list[RunState] | None) -> tuple[Any, ...]:
    from ironbeat.runs import model

    groups = {
        RunState.LIVE: model.LIVE_STATES,
        RunState.ENDED: model.ENDED_STATES,
        RunState.UNSUCCESSFUL: model.UNSUCCESSFUL_STATES,
    }
    named: set[str] = set()
    for state in wanted or ():
        named |= groups.get(state, {state.value})
    return tuple(sorted(named))


def runs_table(found: Sequence[Run], title: str | None = None) -> Table:
    """Runs, one a line."""
    from ironbeat.cli.views import first_line, state_text

    now, short = datetime.now(UTC), narrow()
    return table(
        title,
        ["!created", "!id", "!state", "task", "schedule", ">!took", ">!try", "worker", "why"],
        [
            (
                clock(run.created_at),
                run.id[:8] if short else run.id,
                state_text(run.state),
                run.task.rpartition(".")[2] if short else run.task,
                run.schedule_name,
                duration(
                    run.seconds
                    if run.ended_at or not run.started_at
                    else (now - run.started_at).total_seconds()
                ),
                run.attempt or None,
                run.worker.partition("@")[0] if short and run.worker else run.worker,
                first_line(run.error) or run.reason,
            )
            for run in found
        ],
    )


@app.command()
def runs(
    state: Annotated[
        list[RunState] | None, typer.Option("--state", help="Only these; may be repeated.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="Only the runs of this schedule.")] = None,
    since: Annotated[str | None, typer.Option(help=f"Created from then on: {ACCEPTED}.")] = None,
    until: Annotated[str | None, typer.Option(help="Created before then; as --since.")] = None,
    task: Annotated[str | None, typer.Option(help="Only runs of this task.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only runs of this queue.")] = None,
    workload: Annotated[str | None, typer.Option(help="Only runs of this workload.")] = None,
    worker: Annotated[str | None, typer.Option(help="Only runs this worker had.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Only runs whose task, arguments or error contain this.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List runs, newest first: `ironbeat runs --since 03:00 --until 04:00 --state failed`."""
    from ironbeat.runs.model import Filters
    from ironbeat.settings import get_settings

    zone = ZoneInfo(get_settings().timezone)
    start, end = span(since, until, now=datetime.now(UTC), zone=zone)
    found = ledger().find(
        Filters(
            states=_states(state),
            schedule=schedule,
            since=start,
            until=end,
            task=task,
            queue=queue,
            workload=workload,
            worker=worker,
            text=text,
            limit=limit,
        )
    )
    show(
        [run_fields(run) for run in found],
        as_json,
        lambda: runs_table(found) if found else "No run meets these conditions.",
    )
    if len(found) == limit and not as_json:
        typer.echo(f"The newest {limit}; more with --limit.", err=True)


@app.command()
def task(id: RunId, as_json: JsonFlag = False) -> None:
    """Show one run: state, times, worker, progress, result, error and traceback."""
    run = find_run(ledger(), id)
    show(run_fields(run), as_json, lambda: run_details(run))


def run_details(run: Run) -> RenderableType:
    """One run, a line for each thing known of it."""
    from rich.console import Group
    from rich.text import Text

    from ironbeat.cli.views import state_text

    waited = (
        (run.started_at - (run.eta or run.published_at or run.created_at)).total_seconds()
        if run.started_at
        else None
    )
    rows: list[tuple[str, Any]] = [
        ("id", run.id),
        ("task", run.task),
        ("state", state_text(run.state)),
        ("why", run.reason),
        ("workload", run.workload),
        ("queue", run.queue if run.priority is None else f"{run.queue}, priority {run.priority}"),
        ("schedule", run.schedule_name),
        ("scheduled for", run.scheduled_for),
        ("arguments", f"{run.argsrepr or '()'} {run.kwargsrepr or '{}'}"),
        ("created", run.created_at),
        ("not before", run.eta),
        ("expires", run.expires_at),
        ("started", run.started_at),
        ("ended", run.ended_at),
        ("waited", duration(waited) if waited is not None else None),
        ("took", duration(run.seconds) if run.seconds is not None else None),
        ("worker", run.worker),
        ("attempt", run.attempt or None),
        ("worker deaths", run.crashes or None),
        ("cancel asked", run.cancel_requested_at),
        ("progress", _compact(run.progress)),
        ("result", _compact(run.result)),
        ("error", run.error),
    ]
    made = table(
        None,
        ["", ""],
        [
            (name, words(v) if not isinstance(v, Text) else v)
            for name, v in rows
            if v not in (None, "")
        ],
        fold=True,
    )
    made.show_header = False
    parts: list[RenderableType] = [made]
    if isinstance(run.attempts, list) and run.attempts:
        parts += ["", _earlier_attempts(run.attempts)]
    if run.traceback:
        parts += [Text("\ntraceback", style="bold"), Text(run.traceback.rstrip())]
    return Group(*parts)


def _earlier_attempts(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The attempts before the last one, as the ledger noted them when it gave them up."""

    def at(value: Any) -> str:
        return moment(datetime.fromisoformat(value)) if isinstance(value, str) else "–"

    rows = [
        (
            each.get("attempt"),
            at(each.get("started_at")),
            at(each.get("ended_at")),
            each.get("worker"),
            each.get("error"),
        )
        for each in found
    ]
    columns = [">!attempt", "!started", "!ended", "worker", "error"]
    return table("earlier attempts", columns, rows, fold=True)


def _compact(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)


@app.command()
def cancel(
    id: RunId,
    reason: Annotated[
        str, typer.Option(help="Why; it is kept with the run.")
    ] = "cancelled by hand",
    as_json: JsonFlag = False,
) -> None:
    """Cancel a run: one that waits never starts, one that is running is interrupted."""
    from ironbeat.dispatch import TaskManager

    run = find_run(ledger(), id)
    if run.ended:
        raise CommandError(
            f"run {run.id} has ended already: {run.state}",
            f"`ironbeat task {run.id}` shows it.",
            ExitStatus.REFUSED,
        )
    state = TaskManager().cancel(run.id, reason=reason)
    if state not in ("cancelled", "stopping"):
        raise CommandError(
            f"run {run.id} ended meanwhile: {state}",
            f"`ironbeat task {run.id}` shows it.",
            ExitStatus.REFUSED,
        )
    words_of = {
        "cancelled": f"Run {run.id} is cancelled.",
        "stopping": f"Run {run.id} is asked to stop; `ironbeat task {run.id}` shows when it has.",
    }
    show({"id": run.id, "state": state}, as_json, lambda: words_of[state])


@app.command()
def retry(
    id: RunId,
    again: Annotated[
        bool, typer.Option("--again", help="Also a run that succeeded, if its message is kept.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its end; print the result.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="With --wait: at most so many seconds.")
    ] = 900.0,
    as_json: JsonFlag = False,
) -> None:
    """Run an ended run again with the same arguments, as a new run; the old one stays as it is."""
    from ironbeat.access import audit
    from ironbeat.cli.outcome import print_outcome
    from ironbeat.dispatch import TaskManager

    manager = TaskManager()
    former = find_run(manager.ledger, id)
    made = manager.replay(former.id, succeeded_too=again)
    audit.tell(run=made)
    if wait:
        print_outcome(manager, made, timeout, as_json)
        return
    show(
        {"id": made, "replays": former.id},
        as_json,
        lambda: f"Run {made} repeats {former.id}; `ironbeat task {made}` shows it.",
    )
