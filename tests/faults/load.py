"""Submits tasks at a steady rate while something breaks: ``python -m tests.faults.load``.

Prints a line for each submission that returned: its id and when, in seconds since the epoch. What
raised is no submission; it goes to standard error.
"""

from __future__ import annotations

import sys
import time

from ironbeat import TaskManager, create_app
from ironbeat.runs.model import LedgerUnavailable
from ironbeat.submission import NotAccepted


def main(count: int, per_second: float, seconds: float) -> None:
    """Submit ``count`` tasks of ``seconds``, every fourth one plainly, the others durably."""
    app = create_app()
    manager = TaskManager(app)
    work = app.tasks["counting.work"]
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        try:
            if number % 4 == 0:
                id = work.delay(seconds).id
            else:
                id = manager.submit("counting.work", [seconds])
        except (LedgerUnavailable, NotAccepted) as error:
            print(f"refused: {error}", file=sys.stderr)
            continue
        print(id, f"{time.time():.3f}", flush=True)
    app.ironbeat.recorder.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
