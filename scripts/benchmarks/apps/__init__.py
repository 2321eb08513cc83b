"""The same task in every system, one module a system.

Each module makes its application from the environment, so that workers and producers are processes
of their own, and offers ``send(number)`` and ``flood(first, count)`` as that system's users would
write them. ``BENCH_BROKER`` and ``BENCH_RESULTS`` are Redis URLs.
"""

from __future__ import annotations

import os

QUEUE = "default"


def broker() -> str:
    """The Redis that carries messages."""
    return os.environ["BENCH_BROKER"]


def results() -> str:
    """The Redis that keeps results."""
    return os.environ["BENCH_RESULTS"]
