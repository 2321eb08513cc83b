"""``ironbeat purge``: emptying one queue."""

from __future__ import annotations

from typing import Annotated

import typer

from ironbeat.cli.application import application
from ironbeat.cli.confirmation import confirm
from ironbeat.cli.failures import CommandError, ExitStatus
from ironbeat.cli.output import JsonFlag, show

app = typer.Typer()


@app.command()
def purge(
    queue: Annotated[str, typer.Option("--queue", "-Q", help="This one, and no other.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Take away everything that waits in one queue; runs under way go on. It asks first."""
    from ironbeat.dispatch.purging import purge_queue
    from ironbeat.execution.rq_carrier import own_name

    celery = application()
    if own_name(queue) not in celery.amqp.queues:
        raise CommandError(
            f"there is no queue {queue!r}",
            f"Queues are: {', '.join(sorted(celery.amqp.queues))}.",
            ExitStatus.NOT_FOUND,
        )
    confirm(f"Drop all that waits in the queue {queue}? It cannot be undone.", yes, as_json)
    done = purge_queue(celery, queue)
    show(
        done,
        as_json,
        lambda: (
            f"{done.messages} messages of {queue} are gone from the broker; "
            f"{done.runs} runs that waited are cancelled."
        ),
    )
