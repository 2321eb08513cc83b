"""Every metric explained, from the code that makes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ironbeat.observability.metrics import get_metrics
from ironbeat.watch.exposition import families

SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
}

_HEAD = """\
# Metrics

`/metrics` of the API, as Prometheus text; on loopback and for `monitoring_networks` without a
token. This page is made from the code by `ironbeat metrics --markdown`.

Times are in seconds and memory in bytes. All but the `ironbeat_http_` metrics are read from
PostgreSQL and Redis when they are asked for: every API process of every host gives the same
figures, and counters survive restarts. In a query over several hosts take `max`, not `sum`. What a
server that hangs keeps back is left out, never zero: `ironbeat_up` tells which. Runs are counted
ten seconds after they ended.
"""


@dataclass(frozen=True, slots=True)
class Described:
    """A metric: its name, type, labels, the names of its series, and what it means."""

    name: str
    type: str
    labels: tuple[str, ...]
    series: tuple[str, ...]
    meaning: str


def describe_metrics() -> Iterator[Described]:
    """All metrics that ``/metrics`` carries; no server is asked."""
    for family in families():
        yield _described(family, tuple(getattr(family, "_labelnames", ())))
    for family, labels in get_metrics().families():
        yield _described(family, labels)


def _described(family: Any, labels: tuple[str, ...]) -> Described:
    if family.type == "info":
        labels = tuple(sorted({label for each in family.samples for label in each.labels}))
    series = tuple(family.name + suffix for suffix in SUFFIXES.get(family.type, ("",)))
    return Described(family.name, family.type, labels, series, family.documentation)


def markdown() -> str:
    """The page ``docs/metrics.md``."""
    lines = [_HEAD, "| metric | type | labels | what it says |", "|---|---|---|---|"]
    for each in describe_metrics():
        name = each.series[0] if each.type != "histogram" else each.name
        labels = ", ".join(f"`{label}`" for label in each.labels) or "–"
        lines.append(f"| `{name}` | {each.type} | {labels} | {each.meaning.replace('|', '/')} |")
    return "\n".join(lines) + "\n"
