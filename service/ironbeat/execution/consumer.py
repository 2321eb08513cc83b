"""Celery's consumer: it connects to the broker or to the ledger, and acknowledges at once where the
pool runs tasks inline.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from celery.utils.log import get_logger
from celery.worker.consumer import Consumer as StockConsumer
from celery.worker.state import maybe_shutdown
from kombu.common import ignore_errors

from ironbeat.execution import ledger_transport
from ironbeat.execution.custody import consumption
from ironbeat.execution.plain import ShortWay

logger = get_logger(__name__)

STOCK_CONTROL = "celery.worker.consumer.control:Control"
RECONNECT_SECONDS = 0.5
# A broker that stays away is not reported at each attempt.
REPORT_SECONDS = 30.0


class Consumer(StockConsumer):
    """The setting ``worker_consumer``."""

    class Blueprint(StockConsumer.Blueprint):
        """Celery's steps, with our remote control."""

        default_steps = tuple(
            "ironbeat.execution.control:Control" if step == STOCK_CONTROL else step
            for step in StockConsumer.Blueprint.default_steps
        )

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Celery's handler of messages; where tasks run inline, behind a shorter way."""
        stock = super().create_task_handler(*args, **kwargs)
        return ShortWay(self, stock) if consumption.inline else stock

    def ensure_connected(self, conn: Any) -> Any:
        """A live connection to the broker, or one to the ledger while the broker is gone."""
        scheduler = consumption.scheduler
        if scheduler is None:
            return super().ensure_connected(conn)
        reported_at = -REPORT_SECONDS
        while not scheduler.drawing:
            try:
                conn.connect()
            except (*self.connection_errors, *self.channel_errors) as error:
                if monotonic() - reported_at >= REPORT_SECONDS:
                    reported_at = monotonic()
                    logger.error("consumer: Cannot connect to %s: %s", conn.as_uri(), error)
                scheduler.wait(RECONNECT_SECONDS)
                maybe_shutdown()
            else:
                self.first_connection_attempt = False
                return conn
        self.first_connection_attempt = False
        return ledger_transport.connection()

    def on_connection_error_after_connected(self, exc: Any) -> None:
        """As Celery's, unless the broker has returned to a worker that drew from the ledger."""
        if not isinstance(exc, ledger_transport.BrokerReturned):
            super().on_connection_error_after_connected(exc)
            return
        connection: Any = getattr(self, "connection", None)
        self.connection = None
        if connection:
            ignore_errors(connection, connection.close)

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
