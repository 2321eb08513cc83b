"""Submits tasks at a steady rate while something breaks: ``python -m tests.faults.load``.

It does what a careful client does: a submission that was refused is tried again, under the same
id or key, until it is taken. Prints a line for each that was: its id and when, in seconds since
the epoch. How often one was refused goes to standard error at the end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from uuid import uuid4

from ironbeat import TaskManager, create_app
from ironbeat.runs.model import LedgerUnavailable
from ironbeat.submission import NotAccepted

AGAIN_SECONDS = 0.2


def main(count: int, per_second: float, seconds: float, task: str = "counting.work") -> None:
    """Submit ``count`` tasks of ``seconds``, every fourth one plainly, the others durably."""
    app = create_app()
    manager = TaskManager(app)
    work = app.tasks[task]
    began = time.monotonic()
    refused = 0

    def plainly(id: str) -> str:
        return str(work.apply_async((seconds,), task_id=id).id)

    def durably(key: str) -> str:
        return manager.submit(task, [seconds], idempotency_key=key)

    def insist(submit: Callable[[str], str]) -> str:
        nonlocal refused
        name = str(uuid4())
        while True:
            try:
                return submit(name)
            except (LedgerUnavailable, NotAccepted):
                refused += 1
                time.sleep(AGAIN_SECONDS)

    for number in range(count):
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        id = insist(plainly if number % 4 == 0 else durably)
        print(id, f"{time.time():.3f}", flush=True)
    app.ironbeat.recorder.close()
    print(f"refused {refused} times", file=sys.stderr)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
