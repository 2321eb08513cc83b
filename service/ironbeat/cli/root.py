"""The program's root: which module holds each command, loaded only when it is named.

Importing every command's module, and building its options, would cost each call a tenth of a
second; a shell that completes names and a probe that runs every 30 seconds would both feel it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group_from_info
from typer.models import TyperInfo

from ironbeat.cli import failures

PROGRAMS = "Programs"
WATCH = "Watch"
REPAIR = "Repair"
SCHEDULES = "Schedules and runs"
INSTALLATION = "Installation"
WORKLOADS = "Commands of the workloads"

# The command, the module of this package that holds it, and the panel of `--help` it stands in.
COMMANDS: dict[str, tuple[str, str]] = {
    "status": ("status", WATCH),
    "health": ("status", WATCH),
    "report": ("status", WATCH),
    "metrics": ("metrics", WATCH),
    "monitor": ("monitor", WATCH),
    "monitor-cmd": ("monitor", WATCH),
    "runs": ("runs", SCHEDULES),
    "task": ("runs", SCHEDULES),
    "schedule": ("schedule", SCHEDULES),
    "test": ("trial", SCHEDULES),
    "cancel": ("runs", REPAIR),
    "retry": ("runs", REPAIR),
    "dead": ("dead", REPAIR),
    "purge": ("queues", REPAIR),
    "audit": ("changes", WATCH),
    "users": ("users", INSTALLATION),
    "worker": ("programs", PROGRAMS),
    "beat": ("programs", PROGRAMS),
    "flower": ("programs", PROGRAMS),
    "api": ("programs", PROGRAMS),
    "watchdog": ("wardens", PROGRAMS),
    "scaler": ("wardens", PROGRAMS),
    "rq-worker": ("rq", PROGRAMS),
    "rq-dashboard": ("rq", PROGRAMS),
    "settings": ("settings", INSTALLATION),
    "db": ("database", INSTALLATION),
    "workloads": ("workloads", INSTALLATION),
    "sample": ("sample", INSTALLATION),
}


# Those that change something; the module `audited` says which parts of them.
AUDITED_COMMANDS = frozenset(
    {"schedule", "test", "cancel", "retry", "dead", "purge", "users", "db", "sample"}
)


def build_group(found: typer.Typer) -> TyperGroup:
    """The group of commands that a Typer application describes.

    Without Rich's own help: importing what it needs takes three times as long as all the rest.
    """
    return get_group_from_info(
        TyperInfo(found), pretty_exceptions_short=True, suggest_commands=True, rich_markup_mode=None
    )


class LazyCommands(MutableMapping[str, Any]):
    """The commands by name: the platform's, then one group for each workload that has commands.

    Iterating gives names; only looking one up imports its module.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}
        self._of_workloads: dict[str, str] | None = None

    def _workload_commands(self) -> dict[str, str]:
        if self._of_workloads is None:
            from ironbeat.cli.workloads import command_sources

            found = command_sources()
            self._of_workloads = {name: at for name, at in found.items() if name not in COMMANDS}
        return self._of_workloads

    def _load(self, name: str) -> Any:
        if name not in COMMANDS:
            from ironbeat.cli.workloads import load_commands, log_to_standard_error

            brought = build_group(load_commands(name, self._workload_commands()[name]))
            brought.name, brought.rich_help_panel = name, WORKLOADS
            log_to_standard_error(brought)
            return brought
        module_name, panel = COMMANDS[name]
        module = importlib.import_module(f"ironbeat.cli.{module_name}")
        group = build_group(module.app)
        command: Any = group if group.name == name else group.commands[name]
        command.rich_help_panel = panel
        if name in AUDITED_COMMANDS:
            from ironbeat.cli.audited import watch_over

            watch_over(name, command)
        return command

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            from ironbeat.cli.workloads import explain_absence

            explain_absence(name)
            raise KeyError(name)
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS or name in self._workload_commands()

    def __iter__(self) -> Iterator[str]:
        yield from COMMANDS
        yield from self._workload_commands()

    def __len__(self) -> int:
        return len(COMMANDS) + len(self._workload_commands())


class Root(TyperGroup):
    """The root group: finds commands lazily and turns expected errors into a message and status."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: LazyCommands = LazyCommands()

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands, in the order of ``--help``."""
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The commands by panel, then what the exit statuses mean."""
        panels: dict[str, list[tuple[str, Any]]] = {}
        for name in self.list_commands(ctx):
            command = self.commands[name]
            if not command.hidden:
                panels.setdefault(command.rich_help_panel or WORKLOADS, []).append((name, command))
        widest = max(len(name) for commands in panels.values() for name, _ in commands)
        for panel, commands in panels.items():
            with formatter.section(panel):
                formatter.write_dl(
                    [
                        (name.ljust(widest), command.get_short_help_str(formatter.width))
                        for name, command in commands
                    ]
                )
        with formatter.section("Exit status"):
            formatter.write_dl(
                [(str(status.value), status.meaning) for status in failures.ExitStatus]
            )

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an expected error becomes its message and exit status."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            status = failures.report(error, as_json=failures.wants_json(ctx))
            if status is None:
                raise
            raise typer.Exit(status) from error


app = typer.Typer(
    name="ironbeat",
    cls=Root,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ironbeat import __version__

        typer.echo(f"ironbeat {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Celery on your own machines: schedules, a ledger of every run, workers that recover."""
