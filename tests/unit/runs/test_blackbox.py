"""What a process leaves behind, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ironbeat.runs import blackbox
from ironbeat.runs.blackbox import SAID_BYTES, SLOTS, BlackBox

LEASE = "a" * 32

DOOMED = """
import ctypes, os, sys, time
from pathlib import Path
from ironbeat.runs.blackbox import BlackBox
box = BlackBox(Path(sys.argv[1]), "a" * 32, "worker", "w@here")
box.end(box.begin("done", 1, None))
box.begin("under-way", 4, 900.0)
box.say("the last line")
print("ready", flush=True)
if sys.argv[2] == "crash":
    ctypes.string_at(0)
time.sleep(60)
"""


@pytest.fixture
def box(tmp_path: Path):
    made = BlackBox(tmp_path, LEASE, "worker", "w@here", mask=lambda s: s.replace("hunter2", "***"))
    yield made
    made.close()


def only(directory: Path) -> blackbox.Report:
    [report] = blackbox.read(directory)
    return report


@pytest.mark.parametrize("how", ["kill", "crash"])
def test_it_outlives_its_process(tmp_path: Path, how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DOOMED, str(tmp_path), how], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    if how == "kill":
        assert blackbox.alive(only(tmp_path))
        process.kill()
    assert process.wait(30) == -(signal.SIGKILL if how == "kill" else signal.SIGSEGV)
    report = only(tmp_path)
    assert not blackbox.alive(report)
    [execution] = report.executing
    assert (execution.id, execution.attempt, execution.hard) == ("under-way", 4, 900.0)
    assert time.monotonic() - 120 < execution.began < time.monotonic()
    assert "the last line" in report.words
    assert report.words.startswith("Fatal Python error: Segmentation fault") == (how == "crash")
    blackbox.forget(tmp_path, LEASE)
    assert list(tmp_path.iterdir()) == []


def test_it_is_readable_by_its_user_alone(box: BlackBox, tmp_path: Path) -> None:
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0


def test_words_are_bounded_masked_and_of_the_last_run(box: BlackBox, tmp_path: Path) -> None:
    box.end(box.begin("first", 1, None))
    box.say("of nobody")
    slot = box.begin("second", 1, None)
    for number in range(1000):
        box.say(f"line {number} password hunter2")
    words = only(tmp_path).words
    assert len(words) < SAID_BYTES + 100
    assert "line 999 password ***" in words and "hunter2" not in words
    assert "of nobody" not in words and "line 1 " not in words
    box.end(slot)
    assert not box.busy


def test_more_executions_than_slots_are_no_error(box: BlackBox, tmp_path: Path) -> None:
    slots = [box.begin(f"{n}", 1, None) for n in range(SLOTS + 5)]
    assert len(only(tmp_path).executing) == SLOTS
    for slot in slots:
        box.end(slot)
    assert only(tmp_path).executing == () and not box.busy


def test_long_ids_and_odd_names(box: BlackBox, tmp_path: Path) -> None:
    box.begin("ä" * 500, 1, None)
    assert only(tmp_path).executing[0].id.startswith("ääää")


def test_a_child_begins_its_own(box: BlackBox, tmp_path: Path) -> None:
    box.begin("parent's", 1, None)
    child = os.fork()
    if not child:
        box.begin("child's", 1, None)
        os._exit(0)
    os.waitpid(child, 0)
    found = {each.kind: [e.id for e in each.executing] for each in blackbox.read(tmp_path)}
    assert found == {"worker": ["parent's"], "child": ["child's"]}
    box.close()
    blackbox.forget(tmp_path, LEASE)


def test_signs_of_life(box: BlackBox, tmp_path: Path) -> None:
    before = only(tmp_path)
    time.sleep(0.01)
    box.pulse()
    box.tick()
    box.waiting(True)
    after = only(tmp_path)
    assert after.pulse > before.pulse and after.tick > before.tick and after.waiting_since
    box.waiting(False)
    assert only(tmp_path).waiting_since == 0


def test_what_is_no_box_is_passed_over(box: BlackBox, tmp_path: Path) -> None:
    (tmp_path / f"{LEASE}.77").write_bytes(b"short")
    (tmp_path / f"{LEASE}.78").write_bytes(b"x" * 20_000)
    assert len(list(blackbox.read(tmp_path))) == 1
    assert list(blackbox.read(tmp_path / "nowhere")) == []


def test_where_it_cannot_be_written_nothing_breaks(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    box = BlackBox(tmp_path / "file", LEASE, "worker", "w")
    box.end(box.begin("x", 1, None))
    box.say("x")
    box.pulse()
    box.close()


def test_what_a_stopped_process_left_is_kept_until_it_is_dead(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DOOMED, str(tmp_path), "wait"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    try:
        blackbox.bury(tmp_path, LEASE)
        assert only(tmp_path).pid == process.pid
    finally:
        process.kill()
        process.wait()
    blackbox.bury(tmp_path, LEASE)
    assert list(blackbox.read(tmp_path)) == []
