"""An application that both sides carry, and workers of either."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from sides import APPS, QUEUE, StartRQ
from tests.processes import Program, wait_for

from ironbeat import HybridTaskManager
from ironbeat.settings import Settings


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    return tmp_path / "traces"


@pytest.fixture
def shop(settings: Settings, traces: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setenv("TRACES", str(traces))
    monkeypatch.syspath_prepend(str(APPS))
    sys.modules.pop("adopted", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("adopted")
    yield module
    module.app.ironbeat.recorder.close(timeout=1)


@pytest.fixture
def hybrid(shop: ModuleType) -> HybridTaskManager:
    return HybridTaskManager(app=shop.app)


@pytest.fixture
def rq_worker(shop: ModuleType, tmp_path: Path) -> StartRQ:
    """Start ``ironbeat rq-worker`` on the shop's queue."""
    started = iter(range(100))

    @contextmanager
    def start(**environment: str) -> Iterator[Program]:
        number = next(started)
        paths = os.pathsep.join([str(APPS), os.environ.get("PYTHONPATH", "")])
        arguments = ("rq-worker", "--name", f"rq-{number:02d}", "--queues", QUEUE)
        values = {"PYTHONPATH": paths, "IRONBEAT_APP": "adopted:app", **environment}
        command = [str(Path(sys.executable).parent / "ironbeat"), *arguments]
        running = Program(command, tmp_path / f"rq-{number}.log", values)
        try:
            wait_for(lambda: "istening on" in running.output(), seconds=60, program=running)
            yield running
        finally:
            running.stop()

    return start
