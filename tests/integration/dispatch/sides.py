"""What the tests of both sides share: the queue, and what the tasks wrote down."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.processes import TESTS, Program

APPS = TESTS / "integration" / "apps"
QUEUE = "celery"

StartRQ = Callable[..., AbstractContextManager[Program]]


def lines(traces: Path) -> list[str]:
    """What the tasks wrote down, a line for each execution."""
    return traces.read_text().splitlines() if traces.exists() else []
