"""``ironbeat workloads``: what is installed, and the commands that workloads bring."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from ironbeat.cli.failures import CommandError, ExitStatus
from ironbeat.cli.output import JsonFlag, show, table
from ironbeat.workload import ENTRY_POINT_GROUP, WorkloadError, load, switched_off

app = typer.Typer(name="workloads", no_args_is_help=True, help="The installed workloads.")


def command_sources() -> dict[str, str]:
    """Each workload that has commands and can run, with where they are (``module:attribute``).

    A workload that does not load is left out here, so that it cannot break the rest of the
    command line; ``ironbeat workloads list`` says what is wrong with it.
    """
    sources = {}
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        try:
            workload = load(point)
        except WorkloadError:
            continue
        if workload.commands and workload.lacks is None:
            sources[workload.name] = workload.commands
    return sources


def explain_absence(name: str) -> None:
    """Say why the commands of workload ``name`` are not there: raises :class:`CommandError`.

    Returns when no workload of that name lacks anything.
    """
    if reason := switched_off().get(name):
        raise CommandError(
            f"workload {name!r} is off: {reason}.",
            "`ironbeat workloads list` shows all of them.",
            ExitStatus.SETTINGS,
        )


def load_commands(name: str, source: str) -> typer.Typer:
    """The Typer application at ``source``, to stand under ``ironbeat NAME``."""
    module_name, _, attribute = source.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute or "app")
    except Exception as error:
        raise CommandError(
            f"the commands of workload {name!r} ({source}) do not load: {error!r}",
            f"Correct the package that brings {name!r}, or uninstall it.",
            ExitStatus.SETTINGS,
        ) from error
    if not isinstance(found, typer.Typer):
        raise CommandError(
            f"the commands of workload {name!r} ({source}) are a {type(found).__name__}, "
            "not a typer.Typer",
            f"Correct `commands` in the package that brings {name!r}.",
            ExitStatus.SETTINGS,
        )
    return found


def log_to_standard_error(group: TyperGroup) -> None:
    """Keep what the commands of ``group`` say to structlog out of what they answer."""
    invoke = group.invoke

    def invoke_and_answer(ctx: Any) -> Any:
        import structlog

        if not structlog.is_configured():
            structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
        return invoke(ctx)

    group.invoke = invoke_and_answer  # type: ignore[method-assign]


@app.callback()
def group() -> None:
    """The installed workloads."""


@app.command("list")
def list_workloads(as_json: JsonFlag = False) -> None:
    """The installed workloads: switched on or off, their tasks, queues, schedules and commands."""
    from ironbeat.settings import get_settings

    named = get_settings().enabled_workloads
    off = switched_off(named)
    rows: list[dict[str, Any]] = []
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        row: dict[str, Any] = {
            "name": point.name,
            "enabled": named is None or point.name in named,
            "source": point.value,
            "queues": [],
            "schedules": 0,
            "tables": None,
            "commands": None,
            "off": off.get(point.name),
            "error": None,
        }
        try:
            workload = load(point)
        except WorkloadError as error:
            row["error"] = str(error)
        else:
            row["enabled"] = point.name not in off
            row["queues"] = [queue.name for queue in workload.queues]
            row["schedules"] = len(workload.schedules)
            row["tables"] = workload.database_schema if workload.migrations else None
            row["commands"] = f"ironbeat {workload.name}" if workload.commands else None
            if named is not None and point.name in named and workload.lacks:
                row["error"] = workload.lacks
        rows.append(row)
    missing = sorted(set(named or ()) - {row["name"] for row in rows})
    show(
        rows,
        as_json,
        lambda: table(
            None,
            ["workload", "on", "queues", ">schedules", "tables in", "commands", "why not"],
            [
                (
                    row["name"],
                    row["enabled"],
                    ", ".join(row["queues"]),
                    row["schedules"],
                    row["tables"],
                    row["commands"],
                    row["error"] or row["off"],
                )
                for row in rows
            ],
            fold=True,
        ),
    )
    if missing:
        raise CommandError(
            f"switched on but not installed: {', '.join(missing)}",
            "Install the package, or take the name out of IRONBEAT_WORKLOADS.",
            ExitStatus.SETTINGS,
        )
    if any(row["error"] and row["enabled"] for row in rows):
        raise typer.Exit(ExitStatus.SETTINGS)
