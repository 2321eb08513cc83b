"""``fab schedule.list|show|next|run|pause|resume|add|edit|remove|backfill``: what runs when."""

from __future__ import annotations

from invoke import Collection, Context, task

from scripts.ops import tasks
from scripts.ops.output import ends
from scripts.ops.tasks import CHANGE, LOOK, TIMES

NAME = {"name": "The schedule's name."}
SET = {
    "set": "FIELD=VALUE, as `ironbeat schedule edit --help` names the fields: cron='0 3 * * *', "
    "every=30s, timezone=UTC, queue=…, overlap=skip. Repeatable."
}


def _look(arguments: list[str], env: str, limit: str, json: bool) -> int:
    from scripts.ops.errand import run

    return run(tasks.hosts(env, limit), ["schedule", *arguments], as_json=json)


def _change(
    arguments: list[str], before: list[str], env: str, limit: str, dry_run: bool, json: bool
) -> int:
    from scripts.ops.errand import change

    return change(
        tasks.hosts(env, limit),
        ["schedule", *arguments],
        before=["schedule", *before] if before else [],
        dry_run=dry_run,
        as_json=json,
    )


@task(name="list", default=True, help=LOOK)
@ends
def list_schedules(c: Context, env: str = "local", limit: str = "", json: bool = False) -> int:
    """List the schedules with their next and last fire."""
    return _look(["list"], env, limit, json)


@task(positional=["name"], help=LOOK | NAME)
@ends
def show(c: Context, name: str, env: str = "local", limit: str = "", json: bool = False) -> int:
    """Show one schedule: its times, policies, next fires and last runs."""
    return _look(["show", name], env, limit, json)


@task(name="next", positional=["name"], help=LOOK | NAME | {"count": "So many (default: 10)."})
@ends
def next_fires(
    c: Context,
    name: str,
    count: int = 10,
    env: str = "local",
    limit: str = "",
    json: bool = False,
) -> int:
    """Show when a schedule fires next."""
    return _look(["next", name, "--count", str(count)], env, limit, json)


@task(
    positional=["name"],
    help=CHANGE | NAME | {"wait": "Wait for its end and show what it returned."},
)
@ends
def run(
    c: Context,
    name: str,
    wait: bool = False,
    env: str = "local",
    limit: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Run a schedule's task now; its own times stay as they are."""
    arguments = ["run", name, *(["--wait"] if wait else [])]
    return _change(arguments, ["show", name], env, limit, dry_run, json)


@task(positional=["name"], help=CHANGE | NAME)
@ends
def pause(
    c: Context,
    name: str,
    env: str = "local",
    limit: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Let a schedule make no fires until it is resumed."""
    return _change(["pause", name], ["show", name], env, limit, dry_run, json)


@task(positional=["name"], help=CHANGE | NAME)
@ends
def resume(
    c: Context,
    name: str,
    env: str = "local",
    limit: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Let a schedule fire again from now on."""
    return _change(["resume", name], ["show", name], env, limit, dry_run, json)


@task(
    positional=["name"],
    iterable=["set"],
    help=CHANGE | NAME | SET | {"task": "The task's name."},
)
@ends
def add(
    c: Context,
    name: str,
    task: str,
    set: list[str] | None = None,
    env: str = "local",
    limit: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Add a schedule: fab schedule.add nightly --task app.tidy --set cron='0 3 * * *'."""
    from scripts.ops.errand import options

    arguments = ["add", name, "--task", task, *options(set or [])]
    return _change(arguments, [], env, limit, dry_run, json)


@task(
    positional=["name"],
    iterable=["set"],
    help=CHANGE | NAME | SET | {"restore": "Undo all edits: what code declares holds again."},
)
@ends
def edit(
    c: Context,
    name: str,
    set: list[str] | None = None,
    restore: bool = False,
    env: str = "local",
    limit: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Change a schedule: fab schedule.edit nightly --set cron='0 4 * * *'."""
    from scripts.ops.errand import options

    arguments = ["edit", name, *options(set or []), *(["--restore"] if restore else [])]
    return _change(arguments, ["show", name], env, limit, dry_run, json)


@task(positional=["name"], help=CHANGE | NAME | {"yes": "It is meant: there is no way back."})
@ends
def remove(
    c: Context,
    name: str,
    yes: bool = False,
    env: str = "local",
    limit: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Forget a schedule; its runs stay."""
    arguments = ["remove", name, *(["--yes"] if yes else [])]
    return _change(arguments, ["show", name], env, limit, dry_run, json)


@task(
    positional=["name"],
    help=CHANGE
    | NAME
    | {"since": f"The first slot: {TIMES}", "until": "Slots before then; now by default."},
)
@ends
def backfill(
    c: Context,
    name: str,
    since: str,
    until: str = "",
    env: str = "local",
    limit: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Make the runs of all slots in a range that never had one."""
    arguments = ["backfill", name, "--since", since, *(["--until", until] if until else [])]
    return _change(arguments, [*arguments, "--dry-run"], env, limit, dry_run, json)


namespace = Collection(
    "schedule",
    list_schedules,
    show,
    next_fires,
    run,
    pause,
    resume,
    add,
    edit,
    remove,
    backfill,
)
