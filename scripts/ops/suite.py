"""Asking the suite itself: the command ``ironbeat`` on whichever of its hosts answers first."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.ops.everywhere import DEADLINE_SECONDS
from scripts.ops.failures import INCOMPLETE, OpsError, Unreachable
from scripts.ops.inventory import Host
from scripts.ops.reach import Answer, Hear, Reach, reach

IRONBEAT = "/usr/local/bin/ironbeat"
ASK_SECONDS = 30.0

# What a shell says of a command that is not there.
_MISSING = 127


def can_answer(host: Host) -> bool:
    """Whether the suite's own command is installed there."""
    return bool(host.programs)


def run(
    reached: Reach,
    arguments: Sequence[str],
    timeout: float = ASK_SECONDS,
    hear: Hear | None = None,
) -> Answer:
    """Run ``ironbeat`` on a host. Raises :class:`OpsError` where it is not installed."""
    answer = reached.run([IRONBEAT, *arguments], timeout, hear)
    if answer.status == _MISSING:
        raise OpsError(
            f"{reached.host.name}: {IRONBEAT} is not installed", "Run site.yml.", INCOMPLETE
        )
    return answer


def document(reached: Reach, arguments: Sequence[str], timeout: float = ASK_SECONDS) -> Any:
    """The JSON document that ``ironbeat … --json`` prints, whether its verdict is good or bad.

    Raises :class:`OpsError` with the command's own message where it could not answer.
    """
    answer = run(reached, [*arguments, "--json"], timeout)
    try:
        return json.loads(answer.out)
    except ValueError:
        pass
    try:
        said = json.loads(answer.err.strip().splitlines()[-1])
        message, hint = said["error"], said.get("hint", "")
    except (ValueError, IndexError, TypeError, KeyError):
        message, hint = answer.last_words, ""
    raise OpsError(f"{reached.host.name}: {message}", hint, answer.status or INCOMPLETE)


@dataclass
class Answered:
    """What the suite said, and the host that passed it on; or why nobody did."""

    value: Any = None
    host: str = ""
    error: OpsError | None = None


class FirstAnswer:
    """Puts one question to the hosts that offer themselves, one after another, until one answers.

    A host offers itself when it has been reached, so that one which is down costs no time. Each of
    the ``candidates`` either offers itself or withdraws. Only for questions that change nothing.
    """

    def __init__(self, question: Callable[[Reach], Any], candidates: int) -> None:
        self._question = question
        self._candidates = candidates
        self._offers: queue.Queue[Reach | OpsError] = queue.Queue()
        self._done = threading.Event()
        self._answered = Answered()
        threading.Thread(target=self._ask, daemon=True).start()

    def offer(self, reached: Reach) -> None:
        """This host can be asked."""
        self._offers.put(reached)

    def withdraw(self, error: OpsError) -> None:
        """A host cannot be asked."""
        self._offers.put(error)

    def wait(self, seconds: float) -> Answered:
        """The answer, or after ``seconds`` what is known of why there is none."""
        if self._done.wait(max(0.0, seconds)) or self._answered.error is not None:
            return self._answered
        return Answered(error=Unreachable("no host of the suite has answered in time"))

    def _ask(self) -> None:
        withdrawn: OpsError | None = None
        for _ in range(self._candidates):
            offered = self._offers.get()
            if isinstance(offered, OpsError):
                withdrawn = withdrawn or offered
                continue
            try:
                value = self._question(offered)
            except OpsError as error:
                # The first reason is the one to show: the others are its echoes.
                if self._answered.error is None:
                    self._answered = Answered(error=error)
                continue
            self._answered = Answered(value, offered.host.name)
            break
        if self._answered.host == "" and self._answered.error is None:
            self._answered = Answered(error=withdrawn or nobody())
        self._done.set()


def first_answer(
    hosts: Sequence[Host], question: Callable[[Reach], Any], seconds: float = ASK_SECONDS
) -> Any:
    """What the first host says that can answer; raises why none could."""
    able = [host for host in hosts if can_answer(host)]
    asked = FirstAnswer(question, len(able))
    for host in able:
        threading.Thread(target=_introduce, args=(host, asked), daemon=True).start()
    answered = asked.wait(seconds)
    if answered.error is not None:
        raise answered.error
    return answered.value


def first_reached(hosts: Sequence[Host], seconds: float = DEADLINE_SECONDS) -> Reach:
    """The first host that can be reached, for what must be done once and not tried elsewhere."""
    reached: Reach = first_answer(hosts, lambda offered: offered, seconds)
    return reached


def _introduce(host: Host, asked: FirstAnswer) -> None:
    try:
        reached = reach(host)
        reached.open()
    except OpsError as error:
        asked.withdraw(Unreachable(f"{host.name}: {error.message}", error.hint))
    else:
        asked.offer(reached)


def nobody() -> OpsError:
    """None of the hosts can be asked about the suite."""
    return OpsError(
        "none of these hosts carries the suite's own command",
        "It is on the hosts of the groups beat, workers and web.",
        INCOMPLETE,
    )
