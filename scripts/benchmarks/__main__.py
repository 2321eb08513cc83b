"""The benchmarks' command line."""

from __future__ import annotations

import argparse
import sys
from types import ModuleType

import benchmarks
from benchmarks import (
    analytics,
    beat,
    dashboard,
    documents,
    marketplace,
    overload,
    recovery,
    soak,
    speech,
    submission,
    throughput,
    webhook,
)
from benchmarks.programs import Trouble
from benchmarks.servers import forget_own_settings

# Each with the peers it knows; the first are measured unless others are asked for.
BENCHMARKS: dict[str, tuple[ModuleType, tuple[str, ...], str]] = {
    "throughput": (
        throughput,
        ("celery", "celery-reliable", "rq", "rq-simple", "dramatiq", "huey", "taskiq"),
        "no-op tasks: drained and enqueued per second, latency, CPU, memory",
    ),
    "beat": (
        beat,
        ("django-celery-beat", "redbeat", "sqlalchemy-celery-beat"),
        "many schedules: lateness, CPU, memory, start-up, and how soon an edit takes effect",
    ),
    "soak": (soak, (), "two beats, one-second schedules: every slot runs exactly once"),
    "recovery": (
        recovery,
        ("celery", "celery-reliable", "rq", "dramatiq", "huey", "taskiq"),
        "kill -9 of a worker until its task runs again",
    ),
    "webhook": (webhook, (), "chat webhooks: how soon they are acknowledged, and answered"),
    "marketplace": (marketplace, (), "each task of the marketplace once, over a million users"),
    "analytics": (
        analytics,
        ("kmeans", "minibatch-kmeans", "dbscan", "hdbscan", "agglomerative"),
        "chat messages embedded and clustered end to end, and again with 1 % news",
    ),
    "overload": (
        overload,
        (),
        "a million runs in one go: memory, beat's lateness, health, and that none is lost",
    ),
    "speech": (
        speech,
        (),
        "recordings judged: pairs in order, how far a codec moves a score, analyses a second",
    ),
    "rq": (
        documents,
        ("rq", "celery"),
        "RQ beside Celery on the work of `documents`: the owners' table, and a plot",
    ),
    "dashboard": (
        dashboard,
        (),
        "the pages with a million runs and 100,000 schedules: how soon each comes",
    ),
    "submit": (submission, ("celery",), "tasks handed over by one process, committed"),
}


def main() -> int:
    """Run the benchmark that the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=benchmarks.__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, (module, peers, summary) in BENCHMARKS.items():
        # argparse formats what it is given.
        texts = {"help": summary, "description": module.__doc__ or ""}
        command = commands.add_parser(name, **{k: v.replace("%", "%%") for k, v in texts.items()})
        command.add_argument(
            "--json", action="store_true", help="print one JSON object with one object a system"
        )
        if peers:
            command.add_argument(
                "--peers",
                default=peers[0],
                metavar="LIST",
                help=f"measure these beside Ironbeat: all, none, or of {', '.join(peers)} "
                f"({peers[0]})",
            )
        module.add_arguments(command)
    arguments = parser.parse_args()
    module, known, _ = BENCHMARKS[arguments.benchmark]
    peers = _chosen(parser, getattr(arguments, "peers", "none"), known)
    forget_own_settings()
    try:
        return int(module.run(arguments, peers))
    except Trouble as trouble:
        sys.exit(f"bench: {trouble}")


def _chosen(parser: argparse.ArgumentParser, text: str, known: tuple[str, ...]) -> list[str]:
    if text in ("none", ""):
        return []
    if text == "all":
        return list(known)
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"no peer is named {', '.join(unknown)}; there are: {', '.join(known)}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
