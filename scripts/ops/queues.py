"""``fab queues``: what waits in each queue, how old it is, who consumes it."""

from __future__ import annotations

from collections.abc import Sequence

from scripts.ops import output, status, suite, words
from scripts.ops.failures import OK, UNREACHABLE
from scripts.ops.inventory import Host


def show(hosts: Sequence[Host], *, as_json: bool) -> int:
    """Print the queues."""
    told = suite.first_answer(hosts, status.question)
    if as_json:
        output.document({"queues": told["queues"], "problems": told["problems"]})
    else:
        output.lines(status.queues(told["queues"]).lines(colour=words.colours()))
        output.lines(told["problems"])
    return UNREACHABLE if any(queue["length"] is None for queue in told["queues"]) else OK
