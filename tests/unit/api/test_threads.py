"""Blocking calls beside the loop: bounded in time and in number."""

import asyncio
import threading
import time

import pytest

from ironbeat.api.problems import Problem
from ironbeat.api.threads import Threads


def test_results_and_errors_come_back():
    async def ask():
        threads = Threads()
        assert await threads.run(lambda: 7) == 7
        with pytest.raises(KeyError, match="x"):
            await threads.run(lambda: {}["x"])
        with pytest.raises(TimeoutError, match="the call's own"):
            await threads.run(lambda: fail(TimeoutError("the call's own")))
        with pytest.raises(RuntimeError, match="StopIteration"):
            await threads.run(lambda: fail(StopIteration()))
        await asyncio.sleep(0.05)
        assert threads.busy == 0

    asyncio.run(ask())


def fail(error):
    raise error


def test_what_hangs_is_left_behind_and_too_much_of_it_refused():
    end = threading.Event()

    async def ask():
        threads = Threads(most=2, seconds=0.2)
        for _ in range(2):
            with pytest.raises(Problem, match="a server hangs") as refused:
                await threads.run(end.wait)
            assert refused.value.status == 503
        assert threads.busy == 2
        started = time.monotonic()
        with pytest.raises(Problem, match="Too many"):
            await threads.run(lambda: 1)
        assert time.monotonic() - started < 1
        end.set()
        assert await threads.run(lambda: 2, 2.0) == 2

    asyncio.run(ask())


def test_a_caller_that_goes_away_leaves_no_mess():
    async def ask():
        threads = Threads()
        task = asyncio.create_task(threads.run(lambda: time.sleep(0.1)))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.2)
        assert threads.busy == 0

    asyncio.run(ask())
