"""The tasks as Fabric knows them: their options and help; what they do is in the other modules.

A task's work is imported when it runs, so that ``fab --list`` stays quick. An option that may be
given several times also takes a list with commas.
"""

from __future__ import annotations

from invoke import Collection, Context, task

from scripts.ops.inventory import Host
from scripts.ops.output import ends

ENV = "Inventory: a name below inventory/, or a path (default: local)."
LIMIT = "Only these hosts and groups, as Ansible's --limit: 'workers,!worker3'."
JSON = "Print one JSON document."
DRY_RUN = "Show what would be done and change nothing."
LOOK = {"env": ENV, "limit": LIMIT, "json": JSON}
CHANGE = LOOK | {"dry-run": DRY_RUN}
TIMES = "03:00, 2h (ago), yesterday 03:00, 2026-03-01T03:00; in the suite's time zone."
PROGRAM = "Only this: worker, beat, api, flower, a process (worker_01) or a pattern. Repeatable."


def hosts(env: str, limit: str) -> tuple[Host, ...]:
    """The hosts that ``--env`` and ``--limit`` mean."""
    from scripts.ops.ansible_inventory import read
    from scripts.ops.inventory import select

    return select(read(env), limit or None)


def _listed(values: list[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


@task(help=LOOK)
@ends
def status(c: Context, env: str = "local", limit: str = "", json: bool = False) -> int:
    """Show every program on every host, beat, queues and broken limits.

    Exit status 1 when a host cannot be reached, a program does not run, or the suite is unhealthy.
    """
    from scripts.ops.status import show

    return show(hosts(env, limit), as_json=json)


@task(help=LOOK)
@ends
def health(c: Context, env: str = "local", limit: str = "", json: bool = False) -> int:
    """Check API, broker, database, disk, clock, certificate, pidfiles on every host.

    Exit status 1 when a check is bad; a warning alone leaves it at 0.
    """
    from scripts.ops.health import show

    return show(hosts(env, limit), as_json=json)


@task(
    help=LOOK
    | {
        "since": f"The period's beginning: {TIMES} A day ago by default.",
        "until": "The period's end; as --since.",
        "html": "Write it to this file, as a page to send on.",
    }
)
@ends
def report(
    c: Context,
    env: str = "local",
    limit: str = "",
    since: str = "",
    until: str = "",
    html: str = "",
    json: bool = False,
) -> int:
    """Tell processes, queues, limits, what ran and failed in a period, what is next."""
    from scripts.ops.report import show

    return show(hosts(env, limit), since=since, until=until, html=html, as_json=json)


@task(
    iterable=["program"],
    help=CHANGE | {"program": PROGRAM, "serial": "So many hosts at a time (default: 1)."},
)
@ends
def restart(
    c: Context,
    env: str = "local",
    limit: str = "",
    program: list[str] | None = None,
    serial: int = 1,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Restart programs one by one, drained and checked; stop at the first unhealthy one.

    On a host one process at a time; hosts one after another. Beat, API and Flower come before the
    workers, and hosts with short tasks before those that may drain for long. Nothing begins when a
    host cannot be reached. After Ctrl-C the process under way is finished.
    """
    from scripts.ops.restart import run

    return run(
        hosts(env, limit),
        programs=_listed(program or []),
        serial=serial,
        dry_run=dry_run,
        env=env,
        as_json=json,
    )


@task(
    iterable=["program"],
    help=LOOK
    | {
        "json": "Print one JSON document a line.",
        "program": PROGRAM,
        "since": f"From then on: {TIMES}",
        "until": "Before then; as --since.",
        "grep": "Only lines that this regular expression is found in.",
        "task": "Only lines about this task, or about the run with this id or beginning of it.",
        "lines": "The newest so many (default: 200; 0: all).",
        "follow": "Go on with what is logged from now on, until Ctrl-C.",
    },
)
@ends
def logs(
    c: Context,
    env: str = "local",
    limit: str = "",
    program: list[str] | None = None,
    since: str = "",
    until: str = "",
    grep: str = "",
    task: str = "",
    lines: int = 200,
    follow: bool = False,
    json: bool = False,
) -> int:
    """Show the log lines of all hosts, merged by time."""
    from scripts.ops.logs import show

    return show(
        hosts(env, limit),
        programs=_listed(program or []),
        since=since,
        until=until,
        grep=grep,
        task=task,
        lines=lines,
        follow=follow,
        as_json=json,
    )


@task(help=LOOK)
@ends
def queues(c: Context, env: str = "local", limit: str = "", json: bool = False) -> int:
    """Show what waits in each queue, how old it is, and who consumes it."""
    from scripts.ops.queues import show

    return show(hosts(env, limit), as_json=json)


@task(name="task", positional=["id"], help=LOOK | {"id": "The run's id, or its beginning."})
@ends
def show_task(c: Context, id: str, env: str = "local", limit: str = "", json: bool = False) -> int:
    """Show one run: state, times, worker, result, error and traceback."""
    from scripts.ops.errand import run

    return run(hosts(env, limit), ["task", id], as_json=json)


@task(
    positional=["id"],
    help=CHANGE
    | {"id": "The run's id, or its beginning.", "reason": "Why; it is kept with the run."},
)
@ends
def cancel(
    c: Context,
    id: str,
    reason: str = "",
    env: str = "local",
    limit: str = "",
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Cancel a run: one that waits never starts, one that runs is interrupted."""
    from scripts.ops.errand import change

    arguments = ["cancel", id, *(["--reason", reason] if reason else [])]
    before = ["task", id]
    return change(hosts(env, limit), arguments, before=before, dry_run=dry_run, as_json=json)


@task(
    help=LOOK
    | {
        "flower-port": "The port here for Flower (default: 5555; 0: any that is free).",
        "api-port": "The port here for the API (default: 8000; 0: any that is free).",
    }
)
@ends
def tunnel(
    c: Context,
    env: str = "local",
    limit: str = "",
    flower_port: int = 5555,
    api_port: int = 8000,
    json: bool = False,
) -> int:
    """Bring Flower and the API of a web host to this laptop, until Ctrl-C."""
    from scripts.ops.tunnel import run

    return run(hosts(env, limit), {"flower": flower_port, "api": api_port}, as_json=json)


namespace = Collection(status, health, report, restart, logs, queues, show_task, cancel, tunnel)
