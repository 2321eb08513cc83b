"""Waiting for a run's end, and printing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ironbeat.cli.failures import CommandError, ExitStatus
from ironbeat.cli.output import show
from ironbeat.cli.runs import run_details, run_fields

if TYPE_CHECKING:
    from ironbeat.dispatch import TaskManager


def print_outcome(manager: TaskManager, id: str, timeout: float, as_json: bool) -> None:
    """Wait up to ``timeout`` seconds for the run's end and print it; exit status 1 if it failed."""
    from celery.exceptions import TimeoutError as ResultTimeout

    from ironbeat.execution.attempt import RunFailed

    try:
        manager.result(id, timeout)
    except RunFailed:
        pass  # Told below, with its traceback.
    except ResultTimeout as error:
        raise CommandError(
            str(error), f"It goes on; `ironbeat task {id}` shows it.", ExitStatus.TIMED_OUT
        ) from error
    ended = manager.status(id)
    show(run_fields(ended), as_json, lambda: run_details(ended))
    if ended.state != "succeeded":
        raise typer.Exit(ExitStatus.FAILED)
