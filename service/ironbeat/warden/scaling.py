"""When to add a worker to a host and when to take one away. Pure.

Up when work piles up and goes on piling up; down, one at a time, when there has been next to none
for much longer. The two conditions are far apart and each must hold for its whole time, so a queue
that swings between them moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """When to act. ``backlog``: waiting messages for each live worker that call for another one.

    ``up_seconds``, ``down_seconds``: how long there must be that much, or next to nothing.
    """

    backlog: int = 10
    up_seconds: float = 5.0
    down_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be done and who is there: messages that wait in the queues of this host's workers,
    live workers of the whole suite that consume them, spares of this host that run, that could be
    started, and how many of those the host has memory for.
    """

    waiting: int
    workers: int
    running: int
    startable: int
    affordable: int


@dataclass(frozen=True, slots=True)
class State:
    """Since when there has been too much, or next to nothing; monotonic seconds."""

    busy_since: float | None = None
    idle_since: float | None = None


def decide(state: State, load: Load, now: float, rules: Rules) -> tuple[State, int]:
    """How many spares to start (positive) or to stop (negative), and the state from now on.

    Half as many again at a time: a large backlog is met in a few steps, a small one not overdone.
    """
    workers = max(1, load.workers)
    busy = load.waiting >= rules.backlog * workers
    idle = load.waiting < workers
    state = State(
        (state.busy_since if state.busy_since is not None else now) if busy else None,
        (state.idle_since if state.idle_since is not None else now) if idle else None,
    )
    if state.busy_since is not None and now - state.busy_since >= rules.up_seconds:
        wanted = max(1, workers // 2)
        change = min(wanted, load.startable, load.affordable)
        # Whoever was started must get the time to show what it changes.
        return State(now if change > 0 else state.busy_since, None), max(0, change)
    if (
        state.idle_since is not None
        and load.running
        and now - state.idle_since >= rules.down_seconds
    ):
        # The next one sooner: it has been idle for long already.
        return State(None, now - rules.down_seconds * 0.8), -1
    return state, 0
