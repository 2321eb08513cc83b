"""The spool on a disk that is slow to trust: bounded, torn, full, locked, found again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ironbeat.runs import spool as spools
from ironbeat.runs.spool import Record, Spool


def record(number: int, size: int = 10) -> Record:
    return Record("outcome", {"id": f"run-{number}", "result": "x" * size})


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", "lease", max_bytes=10_000)
    spool.append([record(1), record(2)])
    spool.append([Record("chord_part", {"chord": "ü\n"})])
    assert spools.read(spool.path) == [record(1), record(2), Record("chord_part", {"chord": "ü\n"})]
    assert spool.path.stat().st_mode & 0o777 == 0o600
    assert spool.path.parent.stat().st_mode & 0o777 == 0o700
    assert spools.bytes_in(tmp_path / "spool") == spool.size


def test_it_is_bounded_and_takes_all_or_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "lease", max_bytes=200)
    spool.append([record(1)])
    with pytest.raises(OSError, match=r"is full: \d+ of 200 bytes"):
        spool.append([record(2), record(3, 500)])
    assert spools.read(spool.path) == [record(1)]
    spool.clear()
    spool.append([record(4)])
    assert spools.read(spool.path) == [record(4)]


@pytest.mark.parametrize("lost", [1, 7])
def test_a_line_that_a_crash_cut_off_is_no_record(tmp_path: Path, lost: int) -> None:
    spool = Spool(tmp_path, "lease", max_bytes=10_000)
    spool.append([record(1), record(2)])
    data = spool.path.read_bytes()
    spool.path.write_bytes(data[:-lost])
    assert spools.read(spool.path) == [record(1)]
    # Whole, but not what was written.
    spool.path.write_bytes(data.replace(b"run-2", b"run-3"))
    assert spools.read(spool.path) == [record(1)]


def test_nobody_finds_what_its_owner_still_holds(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from ironbeat.runs.spool import Record, Spool\n"
        "spool = Spool(Path(sys.argv[1]), 'other', max_bytes=1000)\n"
        "spool.append([Record('outcome', {'id': 'a'})])\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        assert list(spools.left_behind(tmp_path)) == []
        assert [p.name for p in spools.of_lease(tmp_path, "other")] == [f"other.{owner.pid}.spool"]
    finally:
        owner.kill()
        owner.wait()
    [found] = spools.left_behind(tmp_path)
    assert spools.read(found) == [Record("outcome", {"id": "a"})]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    # At once, also where a failed test holds a file open.
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_refuses_a_record_and_keeps_the_others(small_disk: Path) -> None:
    spool = Spool(small_disk, "lease", max_bytes=10**9)
    spool.append([record(1)])
    with pytest.raises(OSError, match="No space left"):
        spool.append([record(n, 10_000) for n in range(2, 12)])
    assert spools.read(spool.path) == [record(1)]
    spool.append([record(2)])
    assert spools.read(spool.path) == [record(1), record(2)]
    spool.clear()
