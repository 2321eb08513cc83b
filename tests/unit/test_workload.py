"""Workloads that lack what they need are off, with the reason, and nothing else notices."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from typer.testing import CliRunner

from ironbeat.cli import workloads
from ironbeat.cli.failures import ExitStatus
from ironbeat.cli.root import app
from ironbeat.settings import get_settings
from ironbeat.watch.report import _load_workloads, _switched_off, enabled_workloads
from ironbeat.workload import Workload, WorkloadError, discover, switched_off

plain = Workload(name="plain")
heavy = Workload(
    name="heavy",
    tasks=("no_such_tasks",),
    migrations="no_such_migrations",
    sample="no_such_sample:load",
    commands="no_such_commands:app",
    extra="analytics",
    needs=("json", "no_such_module"),
)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workloads: one that needs nothing, and one whose extra is missing."""
    points = [
        EntryPoint(name=name, value=f"{__name__}:{name}", group="ironbeat.workloads")
        for name in ("plain", "heavy")
    ]
    # By name: `ironbeat.watch.report` is a function as well.
    for module in ("ironbeat.workload", workloads.__name__, "ironbeat.watch.report"):
        monkeypatch.setattr(sys.modules[module], "entry_points", lambda group: points)
    for cached in (_load_workloads, _switched_off, get_settings):
        cached.cache_clear()


def _run(*arguments: str, exit_status: int = 0) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == exit_status, result.output
    return result.output


def test_a_workload_that_lacks_its_extra_is_left_out_of_all() -> None:
    assert discover() == (plain,)
    reason = switched_off()["heavy"]
    assert "no module named no_such_module;" in reason.replace(")", ";")
    assert "scripts/up --with analytics" in reason
    assert "on hosts set `service_extras: [analytics]`" in reason


def test_naming_it_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(WorkloadError, match=r"'heavy' is switched on.*scripts/up --with analytics"):
        discover(["heavy", "plain"])


def test_what_a_setting_leaves_out_is_off_for_that_reason() -> None:
    assert switched_off(["heavy"]) == {"plain": "not named in IRONBEAT_WORKLOADS"}


def test_a_workload_of_somebodys_own_names_the_package_to_install() -> None:
    lacks = Workload(name="own", needs=("no_such_module",)).lacks
    assert lacks == "no module named no_such_module; install the package that has it"


def test_needs_are_top_level_modules_for_looking_must_not_import() -> None:
    with pytest.raises(WorkloadError, match="top-level"):
        Workload(name="own", needs=("numpy.linalg",))


def test_the_list_shows_it_off_and_why() -> None:
    listed = _run("workloads", "list")
    assert "no_such_module" in listed
    assert "scripts/up" in listed


def test_switched_on_by_setting_without_its_extra_is_a_bad_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IRONBEAT_WORKLOADS", "heavy")
    get_settings.cache_clear()
    assert "no_such_module" in _run("workloads", "list", exit_status=ExitStatus.SETTINGS)


@pytest.mark.parametrize("command", [["heavy", "run"], ["sample", "heavy"]])
def test_its_commands_say_what_is_missing(command: list[str]) -> None:
    output = _run(*command, exit_status=ExitStatus.SETTINGS)
    assert "workload 'heavy' is off" in output
    assert "scripts/up --with analytics" in output


def test_help_and_other_commands_do_without_it() -> None:
    assert "heavy" not in _run("--help")


def test_a_report_names_it_as_off_and_not_as_a_problem() -> None:
    assert enabled_workloads(get_settings()) == ((plain,), [])
    assert list(_switched_off(None)) == ["heavy"]
