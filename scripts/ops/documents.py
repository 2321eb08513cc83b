"""``fab canary`` and ``fab rollback-rq``: the work of `documents` between RQ and Celery.

What moves the work is the suite's own (`ironbeat documents canary|rollback`), run on one host; what
is done here is on the hosts: RQ's programs are started, and the workers that serve this workload
alone are stopped once they have nothing left to do.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from scripts.ops import errand, output, suite
from scripts.ops.failures import OK, REFUSED, TIMED_OUT, UNHEALTHY, OpsError
from scripts.ops.inventory import Host
from scripts.ops.processes import RUNS
from scripts.ops.reach import reach
from scripts.ops.supervisord import Supervisor

# The groups of hosts that carry RQ, and whose workers and Flower serve this workload alone.
RQ_GROUP = "rq"
OWN_GROUP = "workers_documents"
RQ_PROGRAMS = ("rq_worker", "rq_dashboard")
OWN_PROGRAMS = ("worker", "flower")
START_SECONDS = 60.0
POLL_SECONDS = 1.0
# What a command takes beside the watching or waiting that it was asked for.
BESIDE_SECONDS = 60.0


def canary(
    hosts: Sequence[Host],
    ratio: float,
    *,
    seconds: float,
    errors: float,
    slower: float,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Move a share to Celery and watch; the exit status says whether it stayed."""
    if not 0 <= ratio <= 1:
        raise OpsError(f"--ratio {ratio:g} is no share from 0 to 1", "As in --ratio 0.2.", REFUSED)
    arguments = ["documents", "canary", "--ratio", f"{ratio:g}", "--seconds", f"{seconds:g}"]
    arguments += ["--errors", f"{errors:g}", "--slower", f"{slower:g}"]
    if dry_run:
        arguments.append("--dry-run")
    return errand.run(
        hosts, arguments, as_json=as_json, seconds=seconds + BESIDE_SECONDS, live=True
    )


def rollback(hosts: Sequence[Host], *, seconds: float, dry_run: bool, as_json: bool) -> int:
    """All back to RQ, whose programs are started first: what is moved is worked on at once."""
    carriers = [host for host in hosts if RQ_GROUP in host.groups]
    own = [host for host in hosts if OWN_GROUP in host.groups]
    if not carriers:
        raise OpsError(
            f"no host of this inventory is in the group {RQ_GROUP!r}, which carries RQ",
            f"Put a worker's host into the group {RQ_GROUP!r} and run site.yml.",
            REFUSED,
        )
    asked = [
        "documents",
        "rollback",
        *(["--dry-run"] if dry_run else ["--seconds", f"{seconds:g}"]),
    ]
    started = [] if dry_run else [each for host in carriers for each in _start(host)]
    if not (dry_run or as_json):
        output.hear(f"moves what waits to RQ, and waits up to {seconds:g} s for Celery\n")
    moved = suite.document(suite.first_reached(hosts), asked, seconds + BESIDE_SECONDS)
    stopped: list[str] = []
    if not dry_run and moved["drained"]:
        stopped = [each for host in own for each in _stop(host)]
    found = {"moved": moved, "started": started, "stopped": stopped, "dry_run": dry_run}
    if as_json:
        output.document(found)
    else:
        output.lines(_lines(found, carriers, own))
    if dry_run:
        return OK
    if not moved["drained"]:
        return TIMED_OUT
    return OK if moved["ratio"] == 0 and moved["rq"]["workers"] else UNHEALTHY


def _start(host: Host) -> list[str]:
    """Start RQ's programs of a host, and wait until they run. Raises :class:`OpsError`."""
    supervisor = _supervisor(host)
    wanted = [each for each in supervisor.processes() if each.group in RQ_PROGRAMS]
    missing = [each for each in RQ_PROGRAMS if each not in {known.group for known in wanted}]
    if missing:
        raise OpsError(
            f"{host.name}: supervisord does not know {' and '.join(missing)}; nothing was changed",
            "Run site.yml.",
            REFUSED,
        )
    began = [each.full_name for each in wanted if each.state not in RUNS]
    for name in began:
        supervisor.start(name)
    deadline = time.monotonic() + START_SECONDS
    while waiting := [
        each
        for each in supervisor.processes()
        if each.group in RQ_PROGRAMS and each.state != "RUNNING"
    ]:
        if time.monotonic() > deadline:
            names = ", ".join(f"{each.full_name} is {each.state.lower()}" for each in waiting)
            raise OpsError(
                f"{host.name}: {names}; the ratio was not changed", "See fab logs.", UNHEALTHY
            )
        time.sleep(POLL_SECONDS)
    return [f"{host.name}: {name}" for name in began]


def _stop(host: Host) -> list[str]:
    """Stop what serves this workload alone, each finishing what it has."""
    supervisor = _supervisor(host)
    groups = {each.group for each in supervisor.processes() if each.state in RUNS}
    stopping = [group for group in OWN_PROGRAMS if group in groups]
    for group in stopping:
        supervisor.stop_group(group)
    return [f"{host.name}: {group}" for group in stopping]


def _supervisor(host: Host) -> Supervisor:
    reached = reach(host)
    reached.open()
    return Supervisor(reached)


def _lines(found: dict[str, Any], carriers: Sequence[Host], own: Sequence[Host]) -> list[str]:
    moved = found["moved"]
    if found["dry_run"]:
        celery = moved["celery"]
        return [
            f"would start RQ's workers and its page on {', '.join(h.name for h in carriers)}",
            f"would set the ratio from {moved['before']:g} to 0, move {celery['waiting']} runs to "
            f"RQ and wait for {celery['running']} that Celery executes",
            f"would then stop {' and '.join(OWN_PROGRAMS)} on "
            + (", ".join(h.name for h in own) or "no host: none serves documents alone"),
        ]
    return [
        *(f"started {each}" for each in found["started"]),
        f"the ratio is {moved['ratio']:g} (was {moved['before']:g}): everybody obeys it, after a "
        "restart too, whatever USE_CELERY says",
        f"USE_CELERY is still on by {still_on}"
        if (still_on := moved.get("use_celery"))
        else "USE_CELERY is off",
        f"{moved['moved']} runs moved to RQ, {moved['rq']['waiting']} wait there",
        "Celery is drained" if moved["drained"] else "Celery is still busy: run it again",
        *(f"stopped {each}" for each in found["stopped"]),
        f"RQ has {moved['rq']['workers']} workers; its page is on port 9181 of "
        + ", ".join(host.name for host in carriers),
    ]
