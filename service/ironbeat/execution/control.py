"""Celery's remote control, whose thread keeps the consumer waiting no longer than a moment.

The thread that answers commands may be waiting for a broker that is gone; Celery's consumer waits
for that thread before it connects anew. It is left to itself here: its connection ends some time,
and the thread with it.
"""

from __future__ import annotations

import threading

from celery.worker.consumer.control import Control as StockControl
from celery.worker.pidbox import gPidbox

PATIENCE_SECONDS = 1.0


class Pidbox(gPidbox):
    """A mailbox served by a thread."""

    _node_shutdown: threading.Event | None
    _node_stopped: threading.Event | None

    def on_stop(self) -> None:
        """Tell the thread to end, and wait for a moment."""
        shutdown, stopped = self._node_shutdown, self._node_stopped
        if shutdown is not None and stopped is not None:
            shutdown.set()
            stopped.wait(PATIENCE_SECONDS)
            self._node_shutdown = self._node_stopped = None


class Control(StockControl):
    """The consumer's step of this name."""

    name = "Control"

    def __init__(self, c: object, **options: object) -> None:
        super().__init__(c, **options)
        if self.is_green:
            self.box = Pidbox(c)
            self.start = self.box.start
            self.stop = self.box.stop
            self.shutdown = self.box.shutdown
