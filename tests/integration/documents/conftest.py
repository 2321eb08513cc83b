"""The workload `documents` on real servers, with workers of both sides as its hosts start them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from programs import PROGRAM, Start
from tests.processes import Program, wait_for

from ironbeat.app import current_app
from ironbeat.settings import Settings, get_settings
from ironbeat.workloads.documents import pipeline


@pytest.fixture
def documents(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """An Ironbeat with this workload alone; this process uses it."""
    monkeypatch.setenv("IRONBEAT_WORKLOADS", "documents")
    get_settings.cache_clear()
    current_app.cache_clear()
    pipeline.forget_manager()
    current_app()
    yield get_settings()
    current_app().ironbeat.recorder.close(timeout=1)
    current_app.cache_clear()
    pipeline.forget_manager()


@pytest.fixture
def start(documents: Settings, tmp_path: Path) -> Start:
    """Start ``ironbeat worker`` or ``rq-worker`` on the workload's queue, or any other program."""
    numbers = iter(range(100))

    @contextmanager
    def run(
        program: str, *arguments: str, ready: str = "", **environment: str
    ) -> Iterator[Program]:
        name = f"{program}-{next(numbers)}"
        if program in ("worker", "rq-worker"):
            arguments = ("--name", name, "--queues", "metadata_queue", *arguments)
            ready = ready or (" ready." if program == "worker" else "istening on")
        running = Program([PROGRAM, program, *arguments], tmp_path / f"{name}.log", environment)
        try:
            wait_for(lambda: ready in running.output(), seconds=120, program=running)
            yield running
        finally:
            running.stop()

    return run
