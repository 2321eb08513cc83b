"""Celery's consumer, acknowledging at once where the pool runs tasks inline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger
from celery.worker.consumer import Consumer as StockConsumer

from ironbeat.execution.custody import consumption

logger = get_logger(__name__)


class Consumer(StockConsumer):
    """The setting ``worker_consumer``."""

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledge or reject.

        Celery leaves it to the next round of the event loop. An inline pool runs a whole batch
        before that, and the transport only notes an acknowledgement: so it is done here. Other
        pools answer from threads that must wake the event loop.
        """
        if not consumption.inline:
            return super().call_soon_ack(p, *args, **kwargs)
        try:
            return p(*args, **kwargs)
        except Exception:
            logger.exception("while acknowledging a message")
            return None
