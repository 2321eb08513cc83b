"""What the transport tells the ledger: claims for a batch, outcomes before acknowledgements."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ironbeat.execution import header, redis_results
from ironbeat.execution.attempt import describe
from ironbeat.execution.custody import Delivery, DeliveryHooks, consumption
from ironbeat.execution.interruption import Cancelled
from ironbeat.execution.runtime import Runtime
from ironbeat.runs.model import Outcome


class LedgerHooks(DeliveryHooks):
    """Claims a batch in one statement, and keeps acknowledgements behind the outcomes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def on_batch(self, batch: Sequence[Delivery]) -> None:
        """Claim what is going to begin at once; a single message is claimed as it begins.

        What an earlier batch claimed and did not use (revoked, expired) goes back.
        """
        guard = self._runtime.guard
        self._runtime.recorder.catch_up()
        if not consumption.inline:
            return
        guard.release()
        if len(batch) > 1:
            guard.preclaim(
                [
                    header.claim(
                        delivery.headers,
                        delivery.queue,
                        (delivery.payload.get("properties") or {}).get("priority"),
                    )
                    for delivery in batch
                    if delivery.id is not None and not delivery.headers.get("eta")
                ]
            )

    def before_ack(self) -> None:
        """Write what the acknowledgements stand for, or spool it, and the states that were left."""
        redis_results.flush_all()
        self._runtime.recorder.secure()

    def on_lasting(self, id: str) -> None:
        """Say that the task has begun, which of a short one nobody would read in time."""
        self._runtime.announce(id)
        redis_results.flush_all()

    def on_give_back(self, ids: Sequence[str]) -> None:
        """Release the claims of messages that return to their queues; they stay if that fails."""
        self._runtime.guard.withdraw(ids)

    def on_forced_end(self, id: str, error: BaseException) -> None:
        """Record the end of a task whose process is about to be ended with it."""
        execution = self._runtime.executing.get(id)
        if execution is None:
            return
        cancelled = isinstance(error, Cancelled)
        self._runtime.recorder.outcome(
            Outcome(
                id,
                execution.attempt,
                "cancelled" if cancelled else "failed",
                runtime=time.monotonic() - execution.began,
                error=None if cancelled else describe(error),
                reason="cancelled while running; it did not end by itself" if cancelled else None,
            ),
            execution.claim,
        )
        self._runtime.recorder.secure()
