"""What a process counts of itself, for ``/metrics``.

Most figures are not counted by processes at all: :mod:`ironbeat.watch.exposition` reads them from
PostgreSQL and Redis when they are asked for, so that they are right whichever process answers and
survive every restart. What remains is what only the answering processes know. Several of them serve
one port, so they share their values through files in the directory that :func:`share` names before
the first metric is made.
"""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry, Counter, Histogram
    from prometheus_client.metrics_core import Metric

# prometheus-client looks for this name when it is imported.
SHARED_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"

HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def share(directory: Path) -> None:
    """Make this process and those it starts share their counts in ``directory``, from zero.

    To be called before anything imports prometheus_client.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    os.environ[SHARED_DIRECTORY] = str(directory)


class Metrics:
    """The metrics of a process that serves HTTP."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Histogram

        self._own = CollectorRegistry()
        #: Requests answered. ``route`` is the template (``/runs/{id}``), never the path.
        self.requests: Counter = Counter(
            "ironbeat_http_requests",
            "HTTP requests answered, by method, route and status.",
            ("method", "route", "status"),
            registry=self._own,
        )
        #: From the request's arrival to its answer's last byte.
        self.seconds: Histogram = Histogram(
            "ironbeat_http_request_seconds",
            "Time to answer an HTTP request, by method and route.",
            ("method", "route"),
            buckets=HTTP_SECONDS,
            registry=self._own,
        )

    def registry(self) -> CollectorRegistry:
        """What is to be exposed: of this process, or of all that share a directory."""
        if SHARED_DIRECTORY not in os.environ:
            return self._own
        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector

        together = CollectorRegistry()
        MultiProcessCollector(together)
        return together

    def families(self) -> Iterable[tuple[Metric, tuple[str, ...]]]:
        """Each of these metrics with its labels."""
        for metric in (self.requests, self.seconds):
            for family in metric.describe():
                yield family, metric._labelnames


@lru_cache(maxsize=1)
def get_metrics() -> Metrics:
    """The metrics of this process."""
    return Metrics()
