import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
import structlog
import typer
from typer.testing import CliRunner

from ironbeat.cli import workloads
from ironbeat.cli.failures import ExitStatus
from ironbeat.cli.root import COMMANDS, app, build_group

HEAVY = ("celery", "kombu", "sqlalchemy", "psycopg", "redis", "rich", "fastapi")

LOADED = f"""
import sys
from ironbeat.cli.root import app
app(prog_name="ironbeat", args=sys.argv[1:], standalone_mode=False)
print("LOADED", [name for name in {HEAVY!r} if name in sys.modules])
"""


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def test_help_names_every_command_and_what_the_exit_statuses_mean(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    for name in COMMANDS:
        shown = f"\n  {name} " in result.output
        assert shown is (name != "monitor-cmd"), name
    for status in ExitStatus:
        assert f"  {status.value}  {status.meaning}" in result.output


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["worker", "--help"]])
def test_help_loads_none_of_what_a_command_needs(arguments: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert "LOADED []" in ran.stdout


def test_every_command_explains_itself_and_takes_json(runner: CliRunner) -> None:
    programs = {
        *("worker", "beat", "flower", "api", "rq-worker", "rq-dashboard", "watchdog", "scaler"),
    }
    seen = 0
    for path, command in _commands():
        assert command.help, path
        if path[0] not in programs:
            options = {option for parameter in command.params for option in parameter.opts}
            assert "--json" in options, path
        for parameter in command.params:
            assert getattr(parameter, "help", None), (path, parameter.name)
        seen += 1
    assert seen >= len(COMMANDS)


def _commands() -> Iterator[tuple[tuple[str, ...], typer.core.TyperCommand]]:
    for name, (module_name, _) in COMMANDS.items():
        group = build_group(importlib.import_module(f"ironbeat.cli.{module_name}").app)
        if group.name == name:
            for sub_name, command in group.commands.items():
                yield (name, sub_name), command  # type: ignore[misc]
        else:
            yield (name,), group.commands[name]  # type: ignore[misc]


def test_a_mistyped_command_is_a_usage_error_with_a_suggestion(runner: CliRunner) -> None:
    result = runner.invoke(app, ["statsu"])
    assert result.exit_code == ExitStatus.USAGE
    assert "Did you mean 'status'" in result.output


def _pretend_installed(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    monkeypatch.setattr(workloads, "entry_points", lambda group: points)


def _point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group="ironbeat.workloads")


def test_a_workloads_own_commands_stand_under_its_name(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_installed(monkeypatch, _point("billing", f"{__name__}:billing"))
    result = runner.invoke(app, ["billing", "invoice", "7"])
    assert (result.exit_code, result.stdout) == (0, "invoice 7\n")
    assert "\n  billing " in runner.invoke(app, ["--help"]).output


def test_an_expected_error_in_a_workloads_command_is_told_like_any_other(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_installed(monkeypatch, _point("billing", f"{__name__}:billing"))
    result = runner.invoke(app, ["billing", "audit"])
    assert result.exit_code == ExitStatus.UNREACHABLE
    assert "PostgreSQL cannot be reached" in result.output


def test_a_workload_that_does_not_load_breaks_nothing_else(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_installed(monkeypatch, _point("broken", "no_such_module:workload"))
    assert runner.invoke(app, ["--help"]).exit_code == 0
    listed = runner.invoke(app, ["workloads", "list"])
    assert listed.exit_code == ExitStatus.SETTINGS
    assert "no_such_module" in listed.output


def test_commands_of_a_workload_that_do_not_load_are_named(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend_installed(monkeypatch, _point("half", f"{__name__}:half"))
    result = runner.invoke(app, ["half", "x"])
    assert result.exit_code == ExitStatus.SETTINGS
    assert "no_such_commands" in result.output


def test_what_a_workload_logs_is_not_part_of_its_command_s_answer(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    structlog.reset_defaults()
    _pretend_installed(monkeypatch, _point("billing", f"{__name__}:billing"))
    result = runner.invoke(app, ["billing", "invoice", "7"])
    structlog.reset_defaults()
    assert result.stdout == "invoice 7\n"
    assert "an invoice is printed" in result.stderr


def _billing_commands() -> typer.Typer:
    made = typer.Typer(help="Invoices.")

    @made.command()
    def invoice(number: int) -> None:
        """Print an invoice."""
        structlog.get_logger().info("an invoice is printed", number=number)
        typer.echo(f"invoice {number}")

    @made.command()
    def audit() -> None:
        """Ask a database that is not there."""
        import psycopg

        psycopg.connect("postgresql://127.0.0.1:1/x", connect_timeout=1)

    return made


billing_commands = _billing_commands()


def __getattr__(name: str) -> object:
    from ironbeat.workload import Workload

    if name == "billing":
        return Workload(name="billing", commands=f"{__name__}:billing_commands")
    if name == "half":
        return Workload(name="half", commands="no_such_commands:app")
    raise AttributeError(name)
