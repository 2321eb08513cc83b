"""The work of the benchmark ``rq``, the same for every system: nothing, or a chunk's metadata.

``BENCH_WORK`` says which; ``BENCH_TEXTS`` names a JSON file of chunks.
"""

from __future__ import annotations

import json
import os
import time
from functools import cache
from pathlib import Path

from benchmarks import body

NOTHING, METADATA = "nothing", "metadata"


def work() -> str:
    """What the tasks of this process do."""
    return os.environ["BENCH_WORK"]


@cache
def _texts() -> list[str]:
    found: list[str] = json.loads(Path(os.environ["BENCH_TEXTS"]).read_text())
    return found


def text_of(number: int) -> str:
    """The chunk that task ``number`` is given."""
    return _texts()[number % len(_texts())]


def warm() -> None:
    """Load the models, where there is work for them: before children are forked."""
    if work() == METADATA:
        from ironbeat.workloads.documents import metadata

        metadata.warm()


def nothing(number: int, sent_ns: int) -> None:
    """The task that does nothing."""
    body.ran(number, sent_ns)


def describe(number: int, sent_ns: int, text: str) -> dict[str, object]:
    """The task that makes a chunk's metadata, by the product's own function."""
    from ironbeat.workloads.documents import metadata

    began = time.monotonic_ns()
    found = metadata.generate(text)
    body.ran(number, sent_ns, began)
    return found


def lasting(number: int, sent_ns: int, seconds: float) -> None:
    """A task that takes its time."""
    body.ran(number, sent_ns)
    time.sleep(seconds)


def arguments(number: int, sent_ns: int) -> tuple[object, ...]:
    """What a task of this process' work is called with."""
    return (number, sent_ns) if work() == NOTHING else (number, sent_ns, text_of(number))
