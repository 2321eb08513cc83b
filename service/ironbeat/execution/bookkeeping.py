"""What the transport tells the ledger: claims for a batch, outcomes before acknowledgements."""

from __future__ import annotations

from collections.abc import Sequence

from ironbeat.execution import header
from ironbeat.execution.custody import Delivery, DeliveryHooks, consumption
from ironbeat.execution.runtime import Runtime


class LedgerHooks(DeliveryHooks):
    """Claims a batch in one statement, and keeps acknowledgements behind the outcomes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def on_batch(self, batch: Sequence[Delivery]) -> None:
        """Claim what is going to begin at once; a single message is claimed as it begins.

        What an earlier batch claimed and did not use (revoked, expired) goes back.
        """
        guard = self._runtime.guard
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
        """Write the outcomes that the acknowledgements stand for."""
        self._runtime.recorder.flush()

    def on_give_back(self, ids: Sequence[str]) -> None:
        """Release the claims of messages that return to their queues."""
        self._runtime.guard.release(ids)
