"""Running dead letters again."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg

from ironbeat.dispatch.manager import TaskManager
from ironbeat.runs.deadletters import DeadLetters
from ironbeat.runs.replay import again


def replay_letter(manager: TaskManager, id: str) -> str:
    """Run a dead letter again as a new run, once; returns that run's id.

    The new run and the note that the letter was dealt with are committed together. Raises
    :class:`ironbeat.runs.deadletters.NotADeadLetter` (also where somebody was faster),
    :class:`ironbeat.runs.model.RunNotFound`, and :class:`ironbeat.runs.replay.NotReplayable`.
    """
    ledger = manager.ledger
    letters = DeadLetters(ledger)
    letters.get(id)
    run = again(ledger.get(id), id=str(uuid4()))

    def work(connection: psycopg.Connection[Any]) -> bool:
        with connection.transaction():
            if not letters.handle(connection, id, f"replayed as {run.id}"):
                return False
            ledger.create([run], connection=connection)
            return True

    if not ledger.within(work):
        letters.refuse(id)
    manager.publish([run])
    return run.id
