"""``ironbeat dead list|show|replay|drop``: runs that were given up, and what to do about them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from ironbeat.cli.confirmation import confirm
from ironbeat.cli.failures import CommandError, ExitStatus
from ironbeat.cli.output import JsonFlag, clock, narrow, show, table
from ironbeat.cli.runs import RunId, find_run, ledger, run_details, run_fields
from ironbeat.cli.when import ACCEPTED, span

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ironbeat.runs.deadletters import DeadLetter, DeadLetters

app = typer.Typer(
    name="dead",
    help="Dead letters: runs that killed their workers, or that their task rejected.",
    no_args_is_help=True,
)

OfTask = Annotated[str | None, typer.Option("--task", help="Only those of this task.")]
OfQueue = Annotated[str | None, typer.Option("--queue", help="Only those of this queue.")]
Since = Annotated[str | None, typer.Option(help=f"Dead from then on: {ACCEPTED}.")]
Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]…", help="Runs' ids, or as much of each as no other shares."),
]
Everything = Annotated[
    bool, typer.Option("--all", help="All that meet the conditions; give no ids.")
]

# One command does so many at a time: a mistake has an end.
MOST_AT_ONCE = 1000


def _letters() -> DeadLetters:
    from ironbeat.runs.deadletters import DeadLetters

    return DeadLetters(ledger())


def _start(since: str | None) -> datetime | None:
    from ironbeat.settings import get_settings

    zone = ZoneInfo(get_settings().timezone)
    return span(since, None, now=datetime.now(UTC), zone=zone)[0]


def _table(found: list[DeadLetter]) -> RenderableType:
    short = narrow()
    return table(
        None,
        ["!died", "!id", "task", "queue", ">!began", ">!killed", "worker", "why", "done about it"],
        [
            (
                clock(each.ended_at),
                each.id[:8] if short else each.id,
                each.task.rpartition(".")[2] if short else each.task,
                each.queue,
                each.attempts,
                each.crashes,
                each.worker.partition("@")[0] if short and each.worker else each.worker,
                each.reason or each.error,
                each.handled,
            )
            for each in found
        ],
    )


@app.command("list")
def list_letters(
    task: OfTask = None,
    queue: OfQueue = None,
    since: Since = None,
    handled: Annotated[
        bool, typer.Option("--handled", help="Also those that were replayed or dropped.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List dead letters, the latest first."""
    found = _letters().find(
        task=task, queue=queue, since=_start(since), handled_too=handled, limit=limit
    )
    show(found, as_json, lambda: _table(found) if found else "There are no dead letters.")


@app.command("show")
def show_letter(id: RunId, as_json: JsonFlag = False) -> None:
    """Show one with its last words: where it was when its worker died, and what it logged."""
    book = ledger()
    run = find_run(book, id)
    letter = _letters().get(run.id)
    show(
        {**run_fields(run), "handled": letter.handled, "replayable": letter.replayable},
        as_json,
        lambda: run_details(run),
    )


@app.command()
def replay(
    ids: Ids = None,
    everything: Everything = False,
    task: OfTask = None,
    queue: OfQueue = None,
    since: Since = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run dead letters again, each as a new run. With --all it asks first."""
    chosen = _chosen(ids, everything, task, queue, since)
    if everything and chosen:
        confirm(f"Run {len(chosen)} dead letters again?", yes, as_json)
    from ironbeat.access import audit
    from ironbeat.dispatch import TaskManager
    from ironbeat.dispatch.deadletters import replay_letter

    manager = TaskManager()
    made = [{"id": replay_letter(manager, id), "replays": id} for id in chosen]
    audit.tell(runs=[each["id"] for each in made])
    show(
        made,
        as_json,
        lambda: (
            "\n".join(f"Run {each['id']} repeats {each['replays']}." for each in made)
            or "There are no dead letters."
        ),
    )


@app.command()
def drop(
    ids: Ids = None,
    everything: Everything = False,
    task: OfTask = None,
    queue: OfQueue = None,
    since: Since = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Take dead letters off the list without running them; the runs stay in the history."""
    chosen = _chosen(ids, everything, task, queue, since)
    if chosen:
        confirm(f"Drop {len(chosen)} dead letters?", yes, as_json)
    letters = _letters()
    for id in chosen:
        letters.drop(id)
    show(
        {"dropped": chosen},
        as_json,
        lambda: f"Dropped: {', '.join(chosen)}." if chosen else "There are no dead letters.",
    )


def _chosen(
    ids: list[str] | None, everything: bool, task: str | None, queue: str | None, since: str | None
) -> list[str]:
    """The ids that were named, or all that meet the conditions."""
    if bool(ids) == everything:
        raise CommandError(
            "name the dead letters, or say --all", "`ironbeat dead list`.", ExitStatus.USAGE
        )
    if ids:
        if task or queue or since:
            raise CommandError(
                "--task, --queue and --since choose with --all; ids choose by themselves",
                "`ironbeat dead list` shows ids.",
                ExitStatus.USAGE,
            )
        letters, book = _letters(), ledger()
        # All are looked at before anything is done with one of them.
        return [letters.get(find_run(book, id).id).id for id in ids]
    found = _letters().find(task=task, queue=queue, since=_start(since), limit=MOST_AT_ONCE)
    return [each.id for each in found]
