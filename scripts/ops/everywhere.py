"""Asking all hosts at once and waiting no longer than a deadline for any of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from scripts.ops.failures import OpsError, Unreachable
from scripts.ops.inventory import Host

T = TypeVar("T")

# A host that has not answered by then is reported as it is; the others are not kept waiting.
DEADLINE_SECONDS = 9.0


def ask(
    hosts: Sequence[Host], question: Callable[[Host], T], deadline: float = DEADLINE_SECONDS
) -> Mapping[str, T | OpsError]:
    """What ``question`` returned for each host by name, or the expected error that it raised.

    Any other error is a defect, and raised here. A thread that is still waiting at the deadline is
    left to itself: it dies with the process.
    """
    answers: dict[str, T | OpsError] = {}
    defects: list[BaseException] = []
    lock = threading.Lock()
    due = time.monotonic() + deadline

    def work(host: Host) -> None:
        try:
            answer: T | OpsError = question(host)
        except OpsError as error:
            answer = error
        except BaseException as error:
            with lock:
                defects.append(error)
            return
        with lock:
            answers[host.name] = answer

    threads = [threading.Thread(target=work, args=(host,), daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, due - time.monotonic()))
    with lock:
        if defects:
            raise defects[0]
        silent = Unreachable(f"no answer within {deadline:g} s")
        return {host.name: answers.get(host.name, silent) for host in hosts}
