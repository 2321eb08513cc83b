"""All hosts at once, and beside them one question to the suite itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.ops import everywhere, snapshot, suite
from scripts.ops.everywhere import DEADLINE_SECONDS
from scripts.ops.failures import OpsError, Unreachable
from scripts.ops.inventory import Host
from scripts.ops.looking import look
from scripts.ops.reach import Reach, reach
from scripts.ops.snapshot import Snapshot
from scripts.ops.suite import Answered, FirstAnswer


@dataclass(frozen=True)
class Survey:
    """What was seen. ``suite`` is ``None`` when nothing was asked or nobody could be."""

    snapshots: tuple[Snapshot, ...]
    suite: Answered | None


def survey(
    hosts: Sequence[Host],
    question: Callable[[Reach], Any] | None,
    *,
    deep: bool = False,
    also: Callable[[Reach, Snapshot], Snapshot] | None = None,
    deadline: float = DEADLINE_SECONDS,
) -> Survey:
    """Look at every host and ask one of them ``question``, if any, within ``deadline`` seconds.

    ``also`` adds to a host's snapshot what else it was asked, over the same connection.
    """
    began = time.monotonic()
    able = [host for host in hosts if suite.can_answer(host)]
    asked = FirstAnswer(question, len(able)) if able and question else None

    def visit(host: Host) -> Snapshot:
        reached = reach(host)
        can = asked if suite.can_answer(host) else None
        try:
            reached.open()
        except OpsError as error:
            if can:
                can.withdraw(Unreachable(f"{host.name}: {error.message}", error.hint))
            raise
        if can:
            can.offer(reached)
        seen = look(reached, deep=deep)
        return also(reached, seen) if also else seen

    answers = everywhere.ask(hosts, visit, deadline)
    seen = []
    for host in hosts:
        answer = answers[host.name]
        if isinstance(answer, OpsError):
            answer = snapshot.unreachable(host, answer.message, answer.hint)
        seen.append(answer)
    said = asked.wait(deadline - (time.monotonic() - began)) if asked else None
    return Survey(tuple(seen), said)
