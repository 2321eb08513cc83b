import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from ironbeat.app import current_app
from ironbeat.cli.root import app
from ironbeat.watch.report import forget_workloads

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_workload_is_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only the platform's own tasks, queues and schedules, whatever this machine has installed."""
    monkeypatch.setattr("ironbeat.workload.entry_points", lambda group: ())
    monkeypatch.setattr("ironbeat.cli.workloads.entry_points", lambda group: ())
    # What this process found before, or finds meanwhile, is not what other tests find.
    forget_workloads()
    yield
    forget_workloads()


@pytest.fixture
def run() -> Iterator[Run]:
    """Run the command line in this process: ``run("runs", "--json", exit_status=0)``.

    Returns the output, or with ``--json`` the document on standard output (the one on standard
    error where the command failed to give an answer).
    """

    def call(*arguments: str, exit_status: int = 0, input: str | None = None) -> Any:
        result = CliRunner().invoke(app, list(arguments), input=input)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == exit_status, result.output
        if "--json" in arguments:
            return json.loads(result.stdout or result.stderr)
        return result.output

    # The application of this process belongs to the settings of one test.
    current_app.cache_clear()
    yield call
    current_app.cache_clear()
