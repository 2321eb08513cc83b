"""Hands tasks over from a process of its own: ``python -m benchmarks.producer MODULE …``.

Prints one JSON object with the seconds that the system's own calls took.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.programs import Trouble


def produce(
    module: str, environment: Mapping[str, str], *arguments: Any, log: Path
) -> dict[str, float]:
    """Run a producer to its end; raises :class:`Trouble` when it fails."""
    with log.open("ab") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.producer", module, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **environment},
        )
    if done.returncode != 0:
        raise Trouble(f"{module} could not hand tasks over:\n{log.read_text()[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _flood(app: Any, first: str, count: str) -> dict[str, float]:
    app.send(int(first))  # Connections are made outside the measurement.
    began = time.monotonic()
    app.flood(int(first) + 1, int(count) - 1)
    seconds = time.monotonic() - began
    return {"began": began, "seconds": seconds, "per_s": (int(count) - 1) / seconds}


def _pace(app: Any, first: str, count: str, per_second: str) -> dict[str, float]:
    began = time.monotonic()
    for number in range(int(count)):
        wait = began + number / float(per_second) - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        app.send(int(first) + number)
    return {"seconds": time.monotonic() - began}


def _lasting(app: Any, number: str, seconds: str) -> dict[str, float]:
    app.send_lasting(int(number), float(seconds))
    return {"seconds": 0.0}


#: How many tasks ``many`` hands over one by one, beside those in batches.
SINGLES = 300


def _many(app: Any, count: str) -> dict[str, float]:
    app.submit_singly(1)  # Connections are made outside the measurement.
    began = time.perf_counter()
    app.submit_singly(SINGLES - 1)
    single = (SINGLES - 1) / (time.perf_counter() - began)
    began, used = time.perf_counter(), time.process_time()
    app.submit_many(int(count))
    return {
        "per_s": int(count) / (time.perf_counter() - began),
        "cpu_us": (time.process_time() - used) / int(count) * 1e6,
        "single_per_s": single,
    }


_WAYS = {"flood": _flood, "pace": _pace, "lasting": _lasting, "many": _many}


def main(arguments: list[str]) -> None:
    """``MODULE flood FIRST COUNT | pace FIRST COUNT PER_SECOND | lasting NUMBER SECONDS
    | many COUNT``."""
    module, way, *rest = arguments
    app = importlib.import_module(f"benchmarks.apps.{module}")
    figures = _WAYS[way](app, *rest)
    if hasattr(app, "settled"):
        app.settled()
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
