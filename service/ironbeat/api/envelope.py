"""What holds for every request: a bounded body, a bounded time, counted and timed.

Plain ASGI, because a body must be bounded before anything reads it, and an answer must come even
while a blocking handler of a workload cannot be interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ironbeat.api import problems
from ironbeat.observability.metrics import Metrics

logger = logging.getLogger(__name__)

NO_ROUTE = "(none)"
# What is read of a body that is refused, so that the caller can read why.
READ_ON_BYTES = 16 * 1024 * 1024
READ_ON_SECONDS = 2.0


class TooLarge(HTTPException):
    """The request's body exceeds the bound. FastAPI lets an HTTPException through as it is."""

    def __init__(self, most: int):
        super().__init__(413, too_large(most))


def too_large(most: int) -> str:
    """What to tell somebody who sends too much."""
    return (
        f"The body exceeds {most} bytes (setting `api_max_body_bytes`). Store large data in a "
        "table or a file and pass its key."
    )


class Envelope:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, max_body: int, seconds: float, metrics: Metrics):
        self._app = app
        self._max_body = max_body
        self._seconds = seconds
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = _Exchange(scope, receive, send, self._max_body)
        try:
            if exchange.announced > self._max_body:
                await exchange.read_on()
                await exchange.refuse(413, too_large(self._max_body))
                return
            await self._answer(exchange)
        finally:
            route = _template(scope)
            method = scope["method"] if route != NO_ROUTE else "-"
            self._metrics.requests.labels(method, route, str(exchange.status)).inc()
            self._metrics.seconds.labels(method, route).observe(time.perf_counter() - started)

    async def _answer(self, exchange: _Exchange) -> None:
        task: asyncio.Task[None] = asyncio.create_task(
            self._app(exchange.scope, exchange.receive, exchange.send)  # type: ignore[arg-type]
        )
        begun = asyncio.create_task(exchange.begun.wait())
        try:
            # An answer that has begun (a stream) may take as long as it likes.
            await asyncio.wait(
                {task, begun}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if exchange.begun.is_set() or task.done():
                await task
                return
            logger.error("no answer within %s s: %s", self._seconds, exchange.scope["path"])
            task.cancel()
            await exchange.refuse(503, f"No answer within {self._seconds:g} s.")
        except asyncio.CancelledError:
            task.cancel()
            raise
        except Exception:
            # Starlette answers it outside of this middleware.
            exchange.status = 500
            raise
        finally:
            begun.cancel()


class _Exchange:
    """One request and its answer, watched."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body: int):
        self.scope = scope
        self.begun = asyncio.Event()
        self.status = 499
        self.announced = _announced(scope)
        self._receive = receive
        self._send = send
        self._max_body = max_body
        self._received = 0
        self._refused = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > self._max_body:
                if message.get("more_body"):
                    await self.read_on()
                raise TooLarge(self._max_body)
        return message

    async def read_on(self) -> None:
        """Read what the caller still sends and forget it, within bounds.

        A connection that is closed with bytes unread is reset, and a caller that was still sending
        then sees the reset instead of the answer.
        """
        if _waits_to_be_asked(self.scope):
            return
        read = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READ_ON_SECONDS):
                while read < READ_ON_BYTES:
                    message = await self._receive()
                    read += len(message.get("body", b""))
                    if not message.get("more_body"):
                        return

    async def send(self, message: Message) -> None:
        if self._refused:
            # The handler came too late: the caller has had its answer.
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.begun.set()
        await self._send(message)

    async def refuse(self, status: int, detail: str) -> None:
        """Answer with a problem, unless an answer has begun."""
        if self.begun.is_set() or self._refused:
            return
        self._refused = True
        self.status = status
        answer = problems.response(status, detail, headers={"Connection": "close"})
        await answer(self.scope, self._receive, self._send)


def _template(scope: Scope) -> str:
    """The path of the route that answered, with its prefix and names for what varies."""
    # The route itself does not know under which prefix it was included.
    included = scope.get("fastapi", {}).get("effective_route_context")
    for known in (getattr(included, "path_format", None), getattr(scope.get("route"), "path", "")):
        if known:
            return str(known)
    return NO_ROUTE


def _waits_to_be_asked(scope: Scope) -> bool:
    """Whether the caller sends its body only when told to go on."""
    return any(
        name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"]
    )


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
