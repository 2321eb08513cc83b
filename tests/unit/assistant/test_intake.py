"""What comes at the same moment is worked on together, and each caller gets its own outcome."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from ironbeat.workloads.assistant.intake import Entry, Intake

Entries = Sequence[Entry[int, int]]


class Slow:
    """Work whose first batch lasts until it is let go; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, entries: Entries) -> None:
        self.batches.append([entry.asked for entry in entries])
        self.begun.set()
        assert self.go_on.wait(30)
        for entry in entries:
            if entry.asked < 0:
                entry.error = ValueError(entry.asked)
            else:
                entry.given = entry.asked * 10


def _waiting(intake: Intake[int, int], number: int) -> None:
    """Until so many wait behind the batch that is worked on."""
    for _ in range(3000):
        if len(intake._waiting) >= number:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{len(intake._waiting)} wait")


def test_one_alone_is_a_batch_of_its_own() -> None:
    work = Slow()
    work.go_on.set()
    intake: Intake[int, int] = Intake(work, 10)
    assert [intake.put(1), intake.put(2)] == [10, 20]
    assert work.batches == [[1], [2]]


def test_those_that_come_meanwhile_are_one_batch_at_most_so_large() -> None:
    work = Slow()
    intake: Intake[int, int] = Intake(work, 3)
    with ThreadPoolExecutor(6) as threads:
        first = threads.submit(intake.put, 0)
        assert work.begun.wait(30)
        others = []
        for number in (1, 2, 3, 4, 5):
            others.append(threads.submit(intake.put, number))
            _waiting(intake, number)
        work.go_on.set()
        assert [each.result(30) for each in (first, *others)] == [0, 10, 20, 30, 40, 50]
    assert work.batches == [[0], [1, 2, 3], [4, 5]]


def test_an_error_is_that_of_the_entry_it_belongs_to() -> None:
    work = Slow()
    intake: Intake[int, int] = Intake(work, 10)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(intake.put, 0)
        assert work.begun.wait(30)
        bad = threads.submit(intake.put, -1)
        _waiting(intake, 1)
        good = threads.submit(intake.put, 2)
        _waiting(intake, 2)
        work.go_on.set()
        assert (first.result(30), good.result(30)) == (0, 20)
        with pytest.raises(ValueError, match="-1"):
            bad.result(30)


def test_what_the_work_raises_is_everybodys_error_and_the_next_batch_goes_on() -> None:
    calls = []

    def work(entries: Entries) -> None:
        calls.append([entry.asked for entry in entries])
        if len(calls) == 1:
            raise OSError("no server")
        for entry in entries:
            entry.given = 7

    intake: Intake[int, int] = Intake(work, 10)
    with pytest.raises(OSError, match="no server"):
        intake.put(1)
    assert intake.put(2) == 7
    assert calls == [[1], [2]]


def test_many_threads_each_get_their_own() -> None:
    def work(entries: Entries) -> None:
        for entry in entries:
            entry.given = entry.asked + 1

    intake: Intake[int, int] = Intake(work, 8)
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(intake.put, range(2000))) == list(range(1, 2001))
