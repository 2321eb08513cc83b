"""The one way to PostgreSQL, where it can be told without one."""

from __future__ import annotations

import os
import signal
import threading
import time

from ironbeat import database


def test_a_child_does_not_wait_for_a_thread_that_its_parent_has() -> None:
    """RQ's workers fork for each job, while their lease's thread may be looking for its engine."""
    held, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with database._lock:
            held.set()
            enough.wait(30)

    holding = threading.Thread(target=hold)
    holding.start()
    held.wait(30)
    child = os.fork()
    if child == 0:
        database.engine("postgresql://nobody@localhost/nothing")
        os._exit(7)
    try:
        deadline = time.monotonic() + 20
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < deadline, "the child waits for ever"
            time.sleep(0.05)
        child = 0
        assert os.waitstatus_to_exitcode(ended[1]) == 7
    finally:
        enough.set()
        holding.join()
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
