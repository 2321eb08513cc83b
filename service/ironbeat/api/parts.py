"""What the handlers share: settings, the ledger, the platform's application, threads."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fastapi import Request

from ironbeat import watch
from ironbeat.api.problems import Problem
from ironbeat.api.threads import Threads
from ironbeat.observability.masking import Masker, secrets_of
from ironbeat.runs.ledger import Ledger
from ironbeat.settings import Settings
from ironbeat.watch.stores import Kept, Probe

if TYPE_CHECKING:
    from ironbeat.dispatch import TaskManager

# Each combination of parameters is a question; past so many, old ones are forgotten.
MOST_QUESTIONS = 64
IMPORT_SECONDS = 60.0

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


class Parts:
    """One set for a process; kept in ``app.state.parts``."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.health = watch.HealthCheck(settings)
        self.kept = Kept()
        self.ledger = Ledger(
            settings.database_url.get_secret_value(), lease_seconds=settings.lease_seconds
        )
        self._threads = Threads()
        self._making = threading.Lock()
        self._questions: dict[Hashable, Probe[Any]] = {}

    async def run(self, call: Callable[[], Result], seconds: float | None = None) -> Result:
        """A blocking call, in a thread, waited for at most ``seconds``."""
        return await self._threads.run(call, seconds)

    async def shared(self, key: Hashable, read: Callable[[], Result], seconds: float) -> Result:
        """What ``read`` returns; all who ask for ``key`` at the same time get the same answer.

        A figure that many look at must not cost the more the more of them look.
        """
        with self._making:
            question = self._questions.get(key)
            if question is None:
                if len(self._questions) >= MOST_QUESTIONS:
                    self._questions.clear()
                question = self._questions[key] = Probe("shared", read)
        answer = question.start()
        awaited = asyncio.wrap_future(answer)
        awaited.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([awaited], timeout=seconds)
        if not answer.done():
            raise Problem(503, f"No answer within {seconds:g} s; a server hangs.")
        return cast("Result", answer.result())

    def status(self, **options: Any) -> watch.Status:
        """:func:`watch.status`, with what this process keeps for it. Blocks."""
        return watch.status(
            self.settings, health=self.health, connect=self.kept.database, **options
        )

    @cached_property
    def mask(self) -> Masker:
        """Takes this installation's secrets out of a text."""
        return Masker(secrets_of(self.settings))

    @cached_property
    def _app(self) -> Any:
        from ironbeat.app import current_app

        app = current_app()
        app.loader.import_default_modules()
        return app

    def celery(self) -> Any:
        """The platform's Celery application with all task modules imported. Blocks."""
        with self._making:
            return self._app

    @property
    def loaded(self) -> bool:
        """Whether the task modules are imported, so that :meth:`celery` returns at once."""
        return "_app" in self.__dict__

    async def ready(self) -> None:
        """Wait until Celery and the task modules are imported, which takes seconds, once."""
        await self.shared("celery", self.celery, IMPORT_SECONDS)

    def prepare(self, then: Callable[[], object] | None = None) -> None:
        """Import and connect in the background what the first request would have to wait for.

        ``then`` is called when that is done, in one of the background's threads.
        """
        calls = (self.health.check, self.celery)
        left = len(calls)
        ended = threading.Lock()

        def work(call: Callable[[], Any]) -> None:
            nonlocal left
            _quietly(call)
            with ended:
                left -= 1
                last = left == 0
            if last and then is not None:
                then()

        for call in calls:
            threading.Thread(target=work, args=(call,), daemon=True).start()

    def manager(self) -> TaskManager:
        """The task manager. Blocks."""
        from ironbeat.dispatch import TaskManager

        return TaskManager(self.celery())


def _quietly(call: Callable[[], Any]) -> None:
    try:
        call()
    except Exception as error:
        # Whoever asks for it gets the same error, and an answer that explains it.
        logger.warning("not prepared: %s", error)


def parts_of(request: Request) -> Parts:
    """Dependency: the parts of the application that answers."""
    return cast("Parts", request.app.state.parts)
