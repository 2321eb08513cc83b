"""``ironbeat test``: a task of the platform's own, from here to a worker and back."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from ironbeat.cli.failures import CommandError, ExitStatus
from ironbeat.cli.output import JsonFlag, duration, show

app = typer.Typer()

TASK = "ironbeat.echo"


@app.command()
def test(
    message: Annotated[
        str, typer.Option("--message", "-m", help="What the worker shall answer.")
    ] = "hello",
    queue: Annotated[str | None, typer.Option(help="By way of this queue.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for the answer.")] = 10.0,
    as_json: JsonFlag = False,
) -> None:
    """Send a task through the broker to a worker, and wait a bounded time for its answer."""
    from celery.exceptions import TimeoutError as ResultTimeout

    from ironbeat.access import audit
    from ironbeat.dispatch import TaskManager

    manager = TaskManager()
    started = time.monotonic()
    # Nobody wants the answer of a trial that was given up.
    id = manager.submit(TASK, (message,), queue=queue, expires=timeout)
    audit.tell(run=id)
    try:
        answer = manager.result(id, timeout)["message"]
    except ResultTimeout as error:
        state = manager.cancel(id, reason="nobody answered the trial in time")
        raise CommandError(
            f"no answer within {duration(timeout)}; the task is now {state}",
            "`ironbeat status` shows which workers are up and what they do; start one with "
            "`ironbeat worker`.",
            ExitStatus.TIMED_OUT,
        ) from error
    seconds = time.monotonic() - started
    run = manager.status(id)
    result: dict[str, Any] = {
        "id": id,
        "answer": answer,
        "worker": run.worker,
        "queue": run.queue,
        "seconds": round(seconds, 4),
    }
    show(
        result,
        as_json,
        lambda: f"{run.worker} answered {answer!r} after {duration(seconds)} (task {id})",
    )
