"""How many messages to take at once: as many as last about a moment.

A batch spares round trips, but what a worker holds unstarted, another cannot run. So the batch is
sized by time: a queue's messages are measured, and a batch holds what is expected to run within a
budget of some milliseconds. Nothing is known of a new queue: it begins with single messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# A queue is believed to be fast only after a while, and slow at once.
_TRUST = 0.5


@dataclass
class Pace:
    """What was learned about the queues of one consumer.

    ``budget`` is how long a batch should last, in seconds; ``limit`` how many messages it may hold
    however short they are.
    """

    budget: float = 0.010
    limit: int = 64
    _seconds: dict[str, float] = field(default_factory=dict)

    def cost(self, queue: str) -> float:
        """The seconds one message of ``queue`` is expected to take; at first, the whole budget."""
        return self._seconds.get(queue, self.budget)

    def learn(self, queue: str, messages: int, seconds: float) -> None:
        """``messages`` of ``queue`` have just taken ``seconds`` together."""
        mean = seconds / messages
        known = self.cost(queue)
        if mean < known:
            mean = known + _TRUST * (mean - known)
        self._seconds[queue] = mean

    def single(self, queue: str) -> None:
        """Take messages of ``queue`` singly again: some stay with the worker (ETA, rate limit)."""
        self._seconds[queue] = self.budget
