"""The marketplace through the platform's own doors: command line, application, schedules."""

from __future__ import annotations

import json
from typing import Any

from tests.marketplace import Market
from typer.testing import CliRunner

from ironbeat import create_app
from ironbeat.cli.root import app
from ironbeat.workload import discover


def ironbeat(*arguments: str, exit_status: int = 0) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == exit_status, result.output
    return json.loads(result.stdout or result.stderr)


def test_sample_rows_come_by_a_command(market: Market) -> None:
    loaded = ironbeat("sample", "marketplace", "--users", "60")
    assert loaded["rows"]["users"] == market.value("SELECT count(*) FROM marketplace.users") == 60


def test_a_marketplace_in_use_is_refused_with_its_reason(market: Market) -> None:
    market.user()
    refused = ironbeat("sample", "marketplace", "--users", "60", exit_status=6)
    assert "1 users of its own" in json.dumps(refused)


def test_the_application_knows_every_task_by_the_name_its_schedule_calls(market: Market) -> None:
    (workload,) = discover(["marketplace"])
    application = create_app()
    application.loader.import_default_modules()
    market.add("tasks", owner_id=market.user(), title="Walk the dog", deadline_at="-1 day")
    for spec in workload.schedules:
        counts = application.tasks[spec.task].apply(args=spec.args, kwargs=spec.kwargs).get()
        assert counts.get("cancelled", 0) == (spec.name == "cancel-expired-tasks")
