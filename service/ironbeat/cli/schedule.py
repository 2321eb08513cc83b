"""``ironbeat schedule``: what should run when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from ironbeat.cli.application import application
from ironbeat.cli.confirmation import confirm
from ironbeat.cli.failures import CommandError, ExitStatus, not_found, without_secrets
from ironbeat.cli.output import JsonFlag, clock, duration, moment, narrow, plain, show, table
from ironbeat.cli.when import ACCEPTED, span

if TYPE_CHECKING:
    import psycopg
    from rich.console import RenderableType

    from ironbeat.schedules.store import Schedule

app = typer.Typer(name="schedule", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="The schedules' names.")]


class Kind(StrEnum):
    """How a schedule says when."""

    CRON = "cron"
    INTERVAL = "interval"
    SOLAR = "solar"
    ONCE = "once"


class CatchUp(StrEnum):
    """What becomes of fires that beat missed."""

    SKIP = "skip"
    LATEST = "latest"
    ALL = "all"
    WINDOW = "window"


class Overlap(StrEnum):
    """What becomes of a fire whose schedule's last run has not ended."""

    SKIP = "skip"
    QUEUE_ONE = "queue_one"
    ALLOW = "allow"
    CANCEL_OTHER = "cancel_other"


Cron = Annotated[
    str | None, typer.Option(help="Five fields, six with seconds first, or @daily and friends.")
]
Every = Annotated[str | None, typer.Option(help="An interval: 30s, 5m, 1h30m, 1d.")]
Solar = Annotated[str | None, typer.Option(help="An event and a place: sunset@25.03,121.56.")]
Once = Annotated[str | None, typer.Option(help="One instant, in ISO 8601.")]
Zone = Annotated[str | None, typer.Option(help="IANA name; the setting `timezone` otherwise.")]
Args = Annotated[str | None, typer.Option("--args", help="Positional arguments, a JSON array.")]
Kwargs = Annotated[str | None, typer.Option("--kwargs", help="Named arguments, a JSON object.")]
Queue = Annotated[str | None, typer.Option(help='The queue; "" for the task\'s own.')]
Priority = Annotated[str | None, typer.Option(help='0 (first) to 9 (last); "" for none.')]
Starts = Annotated[str | None, typer.Option(help='No fire before this instant; "" for none.')]
Ends = Annotated[str | None, typer.Option(help='No fire after this instant; "" for none.')]
Jitter = Annotated[
    str | None, typer.Option(help="Delay each fire by up to this, the same each time: 30s.")
]
Expires = Annotated[
    str | None, typer.Option(help='A run not started within this is dropped: 1h; "" for never.')
]
CatchUpOption = Annotated[
    CatchUp | None, typer.Option(help="What becomes of fires that beat missed.")
]
CatchUpMax = Annotated[int | None, typer.Option(min=1, help="With `all`: at most so many.")]
CatchUpWindow = Annotated[
    str | None, typer.Option(help="With `window`: those at most so late: 6h.")
]
OverlapOption = Annotated[
    Overlap | None, typer.Option(help="What becomes of a fire while the last run has not ended.")
]


@app.callback()
def schedule() -> None:
    """What should run when: list, add, edit, pause, run now, preview, backfill, import."""


@contextmanager
def database(name: str | None = None) -> Iterator[psycopg.Connection[Any]]:
    """A connection; an unknown ``name`` becomes an error that suggests the one that was meant."""
    from ironbeat.database import connection
    from ironbeat.schedules.store import ScheduleNotFound, listing

    with connection() as opened:
        try:
            yield opened
        except ScheduleNotFound as error:
            import difflib

            known = [each.name for each in listing(opened)]
            meant = difflib.get_close_matches(name or "", known, n=3, cutoff=0.5)
            hint = (
                f"Did you mean {', '.join(map(repr, meant))}?"
                if meant
                else "`ironbeat schedule list` shows all."
            )
            raise not_found("schedule", name or str(error), hint) from error


def fields_of(found: Schedule) -> dict[str, Any]:
    """A schedule as JSON shows it."""
    return {
        **found.definition.as_json(),
        "state": found.state,
        "described": found.definition.describe(),
        "declared": found.declared is not None,
        "edited_at": found.edited_at,
        "changed_from_declared": {
            field: {"now": now, "declared": declared}
            for field, (now, declared) in found.differs_from_declared().items()
        },
        "next_scheduled_for": found.next_scheduled_for,
        "next_fire_at": found.next_fire_at,
        "last_scheduled_for": found.last_scheduled_for,
        "last_fired_at": found.last_fired_at,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
    }


STATE_STYLES = {"active": "green", "paused": "yellow", "finished": "dim", "invalid": "bold red"}


def _state(found: Schedule) -> Any:
    from rich.text import Text

    return Text(found.state, style=STATE_STYLES.get(found.state, ""))


@app.command("list")
def list_schedules(
    matching: Annotated[
        str | None, typer.Argument(help="Only those whose name contains this.")
    ] = None,
    workload: Annotated[str | None, typer.Option(help="Only those of this workload.")] = None,
    task: Annotated[str | None, typer.Option(help="Only those of this task.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only those of this kind.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only those that name this queue.")] = None,
    paused: Annotated[
        bool | None, typer.Option("--paused/--active", help="Only paused ones, or only others.")
    ] = None,
    by_next: Annotated[bool, typer.Option("--by-next", help="The next to fire first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1000,
    as_json: JsonFlag = False,
) -> None:
    """List schedules with their next and last fire."""
    from ironbeat.schedules.store import listing

    with database() as connection:
        found = listing(
            connection,
            matching=matching,
            workload=workload,
            task=task,
            kind=kind.value if kind else None,
            queue=queue,
            enabled=None if paused is None else not paused,
            by_next_fire=by_next,
            limit=limit,
        )

    def render() -> RenderableType:
        columns = ["!schedule", "!", "when", "!next", "!last"]
        if not narrow():
            columns += ["zone", "task", "workload", "edited"]
        rows = [
            (
                each.name,
                _state(each),
                each.definition.expression,
                clock(each.next_fire_at),
                clock(each.last_fired_at),
                each.definition.timezone,
                each.definition.task,
                each.definition.workload,
                clock(each.edited_at) if each.edited_at else None,
            )[: len(columns)]
            for each in found
        ]
        return table(None, columns, rows) if found else "No schedule meets these conditions."

    show([fields_of(each) for each in found], as_json, render)


@app.command("show")
def show_schedule(name: Name, as_json: JsonFlag = False) -> None:
    """Show one schedule: its times in words, policies, next fires and last runs."""
    from ironbeat.cli.runs import run_fields, runs_table
    from ironbeat.runs.ledger import Ledger
    from ironbeat.runs.model import Filters
    from ironbeat.schedules.store import get, preview

    with database(name) as connection:
        found = get(connection, name)
        coming = [] if found.state == "invalid" else preview(connection, name, 5)
    last = Ledger().find(Filters(schedule=name, limit=5))
    fields = fields_of(found) | {
        "next": [fire.due_at for fire in coming],
        "runs": [run_fields(run) for run in last],
    }

    def render() -> RenderableType:
        from rich.console import Group

        parts: list[RenderableType] = [_details(found), ""]
        parts.append(table("Next", ["fires at", "in"], _next_rows(coming)))
        parts += ["", runs_table(last, "Last runs") if last else "It has not run yet."]
        return Group(*parts)

    show(fields, as_json, render)


def _details(found: Schedule) -> RenderableType:
    definition = found.definition
    edits = found.differs_from_declared()
    policy = {
        "all": f"all, at most {definition.catch_up_max}",
        "window": f"window of {duration(definition.catch_up_window_seconds)}",
    }
    rows: list[tuple[str, Any]] = [
        ("schedule", definition.name),
        ("state", _state(found)),
        ("when", f"{definition.expression}   ({definition.describe()})"),
        ("zone", definition.timezone),
        ("task", definition.task),
        ("arguments", f"{list(definition.args)} {dict(definition.kwargs)}"),
        ("workload", definition.workload),
        ("queue", definition.queue),
        ("priority", definition.priority),
        ("not before", definition.starts_at),
        ("not after", definition.ends_at),
        ("jitter", duration(definition.jitter_seconds) if definition.jitter_seconds else None),
        ("expires after", duration(definition.expires_seconds)),
        ("catch-up", policy.get(definition.catch_up, definition.catch_up)),
        ("overlap", definition.overlap),
        ("declared", "in code" if found.declared is not None else "by an operator"),
        ("edited", found.edited_at),
        *((f"  {field}", f"{now!r}; declared {was!r}") for field, (now, was) in edits.items()),
        ("last fired", found.last_fired_at),
        *((f"  {field}", f"wrong: {text}") for field, text in definition.problems().items()),
    ]
    known = [row for row in rows if row[1] not in (None, "", "–")]
    made = table(None, ["", ""], known, fold=True)
    made.show_header = False
    return made


def _next_rows(coming: list[Any]) -> list[tuple[str, str]]:
    now = datetime.now(UTC)
    return [
        (moment(fire.due_at), duration(max(0.0, (fire.due_at - now).total_seconds())))
        for fire in coming
    ]


def _given(**options: Any) -> dict[str, Any]:
    return {
        name: value.value if isinstance(value, StrEnum) else value
        for name, value in options.items()
        if value is not None
    }


@app.command()
def add(
    name: Name,
    task: Annotated[str, typer.Option(help="The task's name; `ironbeat report` lists modules.")],
    cron: Cron = None,
    every: Every = None,
    solar: Solar = None,
    once: Once = None,
    timezone: Zone = None,
    args: Args = None,
    kwargs: Kwargs = None,
    queue: Queue = None,
    priority: Priority = None,
    starts_at: Starts = None,
    ends_at: Ends = None,
    jitter: Jitter = None,
    expires: Expires = None,
    catch_up: CatchUpOption = None,
    catch_up_max: CatchUpMax = None,
    catch_up_window: CatchUpWindow = None,
    overlap: OverlapOption = None,
    paused: Annotated[bool, typer.Option("--paused", help="Make it, but let it rest.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Add a schedule of one's own; exactly one of --cron, --every, --solar, --once says when."""
    from ironbeat.schedules import store
    from ironbeat.schedules.definition import from_input
    from ironbeat.settings import get_settings

    values = _given(
        name=name,
        task=task,
        cron=cron,
        every=every,
        solar=solar,
        once=once,
        timezone=timezone,
        args=args,
        kwargs=kwargs,
        queue=queue,
        priority=priority,
        starts_at=starts_at,
        ends_at=ends_at,
        jitter=jitter,
        expires=expires,
        catch_up=catch_up,
        catch_up_max=catch_up_max,
        catch_up_window=catch_up_window,
        overlap=overlap,
        enabled=not paused,
    )
    definition = from_input(values, timezone=get_settings().timezone)
    celery = application()
    with database() as connection:
        made = store.add(connection, definition, tasks=celery.tasks, queues=celery.amqp.queues)
    show(fields_of(made), as_json, lambda: f"Added {name}: {definition.describe()}.")


@app.command()
def edit(
    name: Name,
    task: Annotated[str | None, typer.Option(help="The task's name.")] = None,
    cron: Cron = None,
    every: Every = None,
    solar: Solar = None,
    once: Once = None,
    timezone: Zone = None,
    args: Args = None,
    kwargs: Kwargs = None,
    queue: Queue = None,
    priority: Priority = None,
    starts_at: Starts = None,
    ends_at: Ends = None,
    jitter: Jitter = None,
    expires: Expires = None,
    catch_up: CatchUpOption = None,
    catch_up_max: CatchUpMax = None,
    catch_up_window: CatchUpWindow = None,
    overlap: OverlapOption = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Undo all edits: what code declares holds again.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Change a schedule; beat follows within a second, and imports leave the edit alone."""
    from ironbeat.schedules import store

    changes = _given(
        task=task,
        cron=cron,
        every=every,
        solar=solar,
        once=once,
        timezone=timezone,
        args=args,
        kwargs=kwargs,
        queue=queue,
        priority=priority,
        starts_at=starts_at,
        ends_at=ends_at,
        jitter=jitter,
        expires=expires,
        catch_up=catch_up,
        catch_up_max=catch_up_max,
        catch_up_window=catch_up_window,
        overlap=overlap,
    )
    if bool(changes) == restore:
        raise CommandError(
            "nothing to change was given" if not restore else "--restore undoes all edits",
            "Give the options to change, or --restore alone.",
            ExitStatus.USAGE,
        )
    needs_tasks = changes.keys() & {"task", "args", "kwargs", "queue"}
    celery = application() if needs_tasks else None
    with database(name) as connection:
        if restore:
            changed = store.restore(connection, name)
        else:
            changed = store.edit(
                connection,
                name,
                changes,
                tasks=celery.tasks if celery else None,
                queues=celery.amqp.queues if celery else None,
            )
    show(fields_of(changed), as_json, lambda: f"{name} is now: {changed.definition.describe()}.")


@app.command()
def pause(names: Names, as_json: JsonFlag = False) -> None:
    """Let schedules make no fires until they are resumed; runs on their way go on."""
    from ironbeat.schedules import store

    _each(names, store.pause, "paused", as_json)


@app.command()
def resume(names: Names, as_json: JsonFlag = False) -> None:
    """Let schedules fire again from now on; nothing of the pause is caught up."""
    from ironbeat.schedules import store

    _each(names, store.resume, "resumed", as_json)


def _each(names: list[str], act: Any, done: str, as_json: bool) -> None:
    from ironbeat.schedules.store import get

    changed = []
    for name in names:
        # A mistyped name among several changes nothing at all.
        with database(name) as connection:
            get(connection, name)
    for name in names:
        with database(name) as connection:
            changed.append(act(connection, name))
    show(
        [fields_of(each) for each in changed],
        as_json,
        lambda: "\n".join(f"{name} is {done}." for name in names),
    )


@app.command()
def run(
    name: Name,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end; print the result.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="With --wait: at most so many seconds.")
    ] = 900.0,
    as_json: JsonFlag = False,
) -> None:
    """Run a schedule's task now; its own times stay as they are."""
    from ironbeat.access import audit
    from ironbeat.dispatch.schedules import run_now

    celery = application()
    with database(name):
        id = run_now(celery, name)
    audit.tell(run=id)
    if not wait:
        show(
            {"id": id, "schedule": name},
            as_json,
            lambda: f"Run {id} of {name} is on its way; `ironbeat task {id}` shows it.",
        )
        return
    from ironbeat.cli.outcome import print_outcome
    from ironbeat.dispatch import TaskManager

    print_outcome(TaskManager(celery), id, timeout, as_json)


@app.command("next")
def next_fires(
    name: Name,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="So many.")] = 10,
    as_json: JsonFlag = False,
) -> None:
    """Show when a schedule fires next; for a paused one, as if it were resumed now."""
    from ironbeat.schedules.store import get, preview

    with database(name) as connection:
        found = get(connection, name)
        coming = preview(connection, name, count)
    show(
        [{"scheduled_for": fire.scheduled_for, "due_at": fire.due_at} for fire in coming],
        as_json,
        lambda: (
            table(found.definition.describe(), ["fires at", "in"], _next_rows(coming))
            if coming
            else f"{name} never fires again."
        ),
    )


@app.command()
def backfill(
    name: Name,
    since: Annotated[str, typer.Option(help=f"The first slot: {ACCEPTED}.")],
    until: Annotated[str | None, typer.Option(help="Slots before this; now by default.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Refuse more slots.")] = 1000,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the slots in the range.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make the runs of all slots in a range that never had one."""
    from ironbeat.dispatch.schedules import backfill as make
    from ironbeat.schedules.planner import slots_between
    from ironbeat.schedules.store import get
    from ironbeat.settings import get_settings

    zone = ZoneInfo(get_settings().timezone)
    start, end = span(since, until or "now", now=datetime.now(UTC), zone=zone)
    assert start is not None and end is not None
    with database(name) as connection:
        found = get(connection, name)
    try:
        if dry_run:
            times = found.definition.cadence(found.anchor_at)
            slots = slots_between(times, start, end, limit)
            show(
                {"schedule": name, "slots": slots},
                as_json,
                lambda: table(None, ["slot"], [(moment(slot),) for slot in slots]),
            )
            return
        # A second early: the database's clock may be behind this machine's.
        made = make(application(), name, start, min(end, _just_now()), limit=limit)
    except ValueError as error:
        raise CommandError(str(error), "Nothing was made.", ExitStatus.USAGE) from error
    show(
        {"schedule": name, "runs": made},
        as_json,
        lambda: f"{len(made)} runs of {name} are on their way; the other slots had theirs.",
    )


def _just_now() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=1)


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Forget a schedule; its runs stay. One that code declares can only be paused."""
    from ironbeat.schedules import store

    with database(name) as connection:
        store.get(connection, name)
        confirm(f"Forget the schedule {name}?", yes, as_json)
        store.remove(connection, name)
    show({"removed": name}, as_json, lambda: f"{name} is forgotten.")


@app.command("import")
def import_schedules(
    django: Annotated[
        bool, typer.Option("--django", help="Take over the tables of django-celery-beat instead.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="IRONBEAT_DJANGO_URL",
            help="With --django: that database, if it is not Ironbeat's own. Others can read a "
            "command line: give a URL with a password by the variable.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --django: only tell what would be added.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring in what code declares (workloads, `beat_schedule`); what an operator edited stays."""
    if django:
        _import_django(url, dry_run, as_json)
        return
    if dry_run:
        raise CommandError(
            "--dry-run goes with --django",
            "An import of what code declares may be repeated.",
            ExitStatus.USAGE,
        )
    from ironbeat.access import audit
    from ironbeat.dispatch.schedules import import_declared

    found = import_declared(application())
    done = found.done
    audit.tell(
        created=done.created, updated=done.updated, retired=done.retired, refused=[*found.refused]
    )
    fields = plain(found.done) | {"notes": found.notes, "refused": found.refused}
    lines = [*found.done.sentences(), *_losses(found.notes, found.refused)]
    lines.append(f"{len(found.done.unchanged)} schedules stay as they were.")
    show(fields, as_json, lambda: "\n".join(lines))
    if found.refused:
        raise typer.Exit(ExitStatus.FAILED)


def _import_django(url: str | None, dry_run: bool, as_json: bool) -> None:
    from ironbeat.access import audit
    from ironbeat.dispatch.schedules import take_over_django
    from ironbeat.schedules.imports import ImportProblem

    try:
        found = take_over_django(application(), url, dry_run=dry_run)
    except ImportProblem as error:
        raise CommandError(
            without_secrets(str(error)), "Nothing was changed.", ExitStatus.USAGE
        ) from error
    audit.tell(added=list(found.added), refused=list(found.refused))
    verb = "would be added" if dry_run else "added"
    lines = [f"schedule {name}: {verb}" for name in found.added]
    lines += [f"schedule {name}: left alone, it is there already" for name in found.present]
    lines += _losses(found.notes, found.refused)
    show(found, as_json, lambda: "\n".join(lines) or "There are no schedules to take over.")
    if found.refused:
        raise typer.Exit(ExitStatus.FAILED)


def _losses(notes: Mapping[str, Sequence[str]], refused: Mapping[str, str]) -> list[str]:
    told = [f"schedule {name}: {note}" for name, lost in notes.items() for note in lost]
    return told + [f"schedule {name}: REFUSED, {reason}" for name, reason in refused.items()]
