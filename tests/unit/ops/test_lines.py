"""Log lines: which are wanted, in which order, how they read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from scripts.ops import logs as fab_logs
from scripts.ops.lines import Gathered, Line, merged, readable

SCRIPT = Path(fab_logs.__file__).parent / "onhost" / "logs.py"
BEGIN = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


def at(seconds: float) -> float:
    return (BEGIN + timedelta(seconds=seconds)).timestamp()


def entry(seconds: float, event: str, **more: Any) -> str:
    stamp = (BEGIN + timedelta(seconds=seconds)).isoformat()
    return json.dumps({"timestamp": stamp, "level": "info", "event": event} | more)


def asked(directory: Path, **more: Any) -> list[tuple[float, str, str]]:
    """What the script on a host prints."""
    question = {"directory": str(directory), "programs": [], **more}
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT), json.dumps(question)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TZ": "UTC"},
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    rotated, current = tmp_path / "worker_00.log.1", tmp_path / "worker_00.log"
    rotated.write_text(f"{entry(0, 'first')}\n{entry(10, 'second', run_id='abc-1', task='a.b')}\n")
    current.write_text(
        f"{entry(20, 'third')}\nTraceback of something\n  that is no JSON\n{entry(40, 'fifth')}\n"
    )
    (tmp_path / "beat.log").write_text(f"{entry(5, 'tick')}\n{entry(30, 'abc-1 mentioned')}\n")
    (tmp_path / "supervisord.log").write_text("2026-03-01 03:00:15,250 INFO spawned: 'beat'\n")
    (tmp_path / "notes.txt").write_text("not a log\n")
    return tmp_path


def test_all_files_of_a_host_are_merged_with_their_rotated_ones(directory: Path) -> None:
    found = asked(directory)
    assert [(name, when - at(0)) for when, name, _ in found] == [
        ("worker_00", 0),
        ("beat", 5),
        ("worker_00", 10),
        ("supervisord", 15.25),
        ("worker_00", 20),
        ("worker_00", 20),
        ("worker_00", 20),
        ("beat", 30),
        ("worker_00", 40),
    ]
    # What follows a line and has no time of its own stays behind it.
    assert [line for _, _, line in found][5:7] == ["Traceback of something", "  that is no JSON"]


@pytest.mark.parametrize(
    ("question", "events"),
    [
        ({"since": at(30)}, ["abc-1 mentioned", "fifth"]),
        ({"since": at(5), "until": at(15)}, ["tick", "second"]),
        ({"grep": "fi(rst|fth)"}, ["first", "fifth"]),
        ({"task": "abc"}, ["second", "abc-1 mentioned"]),
        ({"task": "a.b"}, ["second"]),
        ({"programs": ["beat"]}, ["tick", "abc-1 mentioned"]),
        ({"programs": ["worker"], "lines": 1}, ["fifth"]),
        ({"programs": ["worker:worker_0?"], "until": at(5)}, ["first"]),
    ],
)
def test_only_what_is_asked_for_comes(
    directory: Path, question: dict[str, Any], events: list[str]
) -> None:
    found = [line for _, _, line in asked(directory, **question) if line.startswith("{")]
    assert [json.loads(line)["event"] for line in found] == events


def test_following_goes_on_through_a_rotation_until_nobody_listens(tmp_path: Path) -> None:
    log = tmp_path / "beat.log"
    log.write_text(f"{entry(0, 'before')}\n")
    question = {"directory": str(tmp_path), "programs": [], "lines": 1, "follow": True}
    process = subprocess.Popen(
        [sys.executable, "-I", str(SCRIPT), json.dumps(question)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout
    found: list[str] = []

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            found.append(json.loads(json.loads(line)[2])["event"])

    reader = threading.Thread(target=read, daemon=True)
    reader.start()

    def until(count: int) -> None:
        deadline = time.monotonic() + 20
        while len(found) < count:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    try:
        until(1)
        time.sleep(0.5)
        with log.open("a") as file:
            file.write(f"{entry(1, 'during')}\n{entry(2, 'half')[:20]}")
        until(2)
        with log.open("a") as file:
            file.write(f"{entry(2, 'half')[20:]}\n")
        until(3)
        log.rename(tmp_path / "beat.log.1")
        log.write_text(f"{entry(3, 'rotated')}\n")
        (tmp_path / "api.log").write_text(f"{entry(4, 'new file')}\n")
        until(5)
        process.stdin.close()
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
        reader.join(5)
    assert found[:3] == ["before", "during", "half"]
    assert set(found[3:]) == {"rotated", "new file"}


def test_hosts_are_merged_by_time() -> None:
    one = [Line(1, "a", "beat", "x"), Line(4, "a", "beat", "x")]
    two = [Line(2, "b", "beat", "x"), Line(3, "b", "beat", "x")]
    assert [(line.at, line.host) for line in merged([one, two])] == [
        (1, "a"),
        (2, "b"),
        (3, "b"),
        (4, "a"),
    ]


def test_lines_that_come_late_are_put_in_their_place() -> None:
    gathered = Gathered(patience=1.0)
    gathered.put(Line(10.0, "a", "beat", "x"), now=0.0)
    gathered.put(Line(9.5, "b", "beat", "x"), now=0.8)
    gathered.put(Line(11.0, "b", "beat", "x"), now=0.9)
    assert gathered.take(now=0.9) == []
    assert [line.at for line in gathered.take(now=1.1)] == [9.5, 10.0]
    assert gathered.take(now=1.2) == []
    assert [line.at for line in gathered.rest()] == [11.0]


def test_a_line_reads_well() -> None:
    text = entry(0, "task failed", run_id="abc", level="error", exception="Traceback\nValueError")
    (head, *rest) = readable(Line(at(0), "worker1", "worker_00", text), UTC)
    assert head == "2026-03-01 03:00:00.000 worker1/worker_00 ERROR task failed  run_id=abc"
    assert rest == ["    Traceback", "    ValueError"]
    (plain,) = readable(Line(at(0), "worker1", "worker_00", "no JSON"), UTC)
    assert plain.endswith("worker1/worker_00 no JSON")


def test_a_line_as_json_keeps_its_fields() -> None:
    line = Line(at(0), "worker1", "worker_00", entry(0, "done", run_id="abc"))
    assert line.as_json()["fields"]["run_id"] == "abc"
    assert Line(at(0), "worker1", "worker_00", "[1]").as_json()["text"] == "[1]"
