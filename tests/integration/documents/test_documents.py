"""`ironbeat documents`: a directory, through both queues, with files that are no good in it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from programs import PROGRAM, Start

from ironbeat import CeleryMonitor, HybridTaskManager, RQMonitor
from ironbeat.settings import Settings
from ironbeat.workloads.documents import QUEUE, pipeline, store
from ironbeat.workloads.documents.processor import DocumentProcessor

# Programs are started; on a busy machine that alone takes long.
pytestmark = pytest.mark.timeout(600)

ENGLISH = "Packages are installed with apt. It resolves dependencies for package number {n}. "
CHINESE = "软件包{n}用 apt 安装。它会解决软件包之间的依赖关系。"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Documents of both languages, and some that cannot be read."""
    directory = tmp_path / "library"
    (directory / "zh").mkdir(parents=True)
    (directory / "a.txt").write_text("".join(ENGLISH.format(n=n) for n in range(120)))
    (directory / "b.md").write_text("# Title\n\nOne paragraph about Debian.\n\n## Second\n\nMore.")
    (directory / "c.html").write_text("<h1>Page</h1><p>Text about kernels. It is short.</p>")
    (directory / "zh" / "d.txt").write_text("".join(CHINESE.format(n=n) for n in range(120)))
    (directory / "broken.pdf").write_bytes(b"%PDF-1.7 no")
    (directory / "empty.md").touch()
    (directory / "picture.png").write_bytes(b"not read at all")
    with (directory / "huge.txt").open("wb") as file:
        file.truncate(1024**3)
    return directory


def ironbeat(*arguments: str, status: int = 0) -> Any:
    done = subprocess.run(
        [PROGRAM, "documents", *arguments, "--json"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_directory_through_both_queues(start: Start, library: Path, tmp_path: Path) -> None:
    HybridTaskManager().set_ratio(0.5)
    output = tmp_path / "out"
    with start("rq-worker"), start("worker"):
        found = ironbeat("process", str(library), "--output", str(output), "--readers", "1")
    assert (found["files"], found["documents"], found["ended"]) == (7, 4, True)
    assert found["done"] == found["chunks"] > 15 and found["failed"] == 0
    assert sorted(found["skipped"]) == ["broken.pdf", "empty.md", "huge.txt"]
    assert found["skipped"]["huge.txt"].startswith("too large: 1,073,741,824 bytes")
    assert found["sides"]["rq"] and found["sides"]["celery"]
    lines = [json.loads(line) for line in (output / "zh/d.txt.jsonl").read_text().splitlines()]
    assert [line["position"] for line in lines] == list(range(len(lines)))
    assert all(
        line["metadata"]["language"] == "zh" and line["metadata"]["summary"] for line in lines
    )
    assert {path.name for path in output.rglob("*")} == {
        "a.txt.jsonl", "b.md.jsonl", "c.html.jsonl", "zh", "d.txt.jsonl",
    }  # fmt: skip
    # Both queues' runs are in one ledger.
    queues = {row["queue"] for row in _runs()}
    assert queues == {QUEUE, f"rq:{QUEUE}"}
    # Again: nothing is done anew, what cannot be read is said again.
    again = ironbeat("process", str(library))
    assert (again["documents"], again["unchanged"], again["ended"]) == (0, 4, True)
    assert len(again["skipped"]) == 3
    compared = ironbeat("sides")
    assert compared["ratio"] == 0.5
    assert compared["rq"]["ended"] + compared["celery"]["ended"] == found["chunks"]
    assert compared["rq"]["error_rate"] == compared["celery"]["error_rate"] == 0


def _runs() -> list[dict[str, Any]]:
    with store.transaction() as cursor:
        return cursor.execute(
            "SELECT queue, state FROM ironbeat.run_history WHERE task LIKE '%generate_metadata%'"
        ).fetchall()


@pytest.mark.slow
def test_it_goes_on_where_it_was_stopped(start: Start, library: Path) -> None:
    first = ironbeat("process", str(library), "--timeout", "0", status=7)
    assert first["done"] == 0 and not first["ended"]
    assert RQMonitor().get_queue_length(QUEUE) >= 4
    (library / "b.md").write_text("# Title\n\nAnother paragraph.")
    with start("rq-worker"):
        found = ironbeat("process", str(library))
    assert found["ended"] and found["done"] == found["chunks"]
    paths = [row["path"] for row in store.rows("listing", status=None, limit=100)]
    assert paths.count("b.md") == 1


@pytest.mark.slow
def test_a_caller_s_processor(documents: Settings, start: Start, library: Path) -> None:
    class Vectors:
        def __init__(self) -> None:
            self.chunks: dict[str, dict[str, Any]] = {}

        def add_chunks(self, chunks: Any) -> None:
            self.chunks |= {chunk["chunk_id"]: dict(chunk) for chunk in chunks}

        def update_metadata(self, chunk_id: str, metadata: Any) -> None:
            self.chunks[chunk_id]["metadata"] = metadata

    vectors = Vectors()
    processor = DocumentProcessor(library, None, vectors, use_celery=True, readers=1)
    report = processor.submit()
    # Stored first, all of it to Celery whatever the ratio.
    assert len(vectors.chunks) == report.chunks > 15
    assert CeleryMonitor().get_queue_length(QUEUE) == len(report.submitted) == 4
    assert {each.state for each in report.submitted} == {"PENDING"}
    with start("worker"):
        assert processor.process(timeout=240).ended
    assert {each.state for each in report.submitted} == {"SUCCESS"}
    assert all(chunk["metadata"]["summary"] for chunk in vectors.chunks.values())
    # There is a chunk of a single word that means nothing by itself.
    without = {c["text"] for c in vectors.chunks.values() if not c["metadata"]["keywords"]}
    assert without <= {"More."}
    assert RQMonitor().get_queue_length(QUEUE) == 0
    assert pipeline.manager().status(report.submitted[0].id).state == "succeeded"


def test_the_ratio_from_the_command_line(documents: Settings) -> None:
    manager = HybridTaskManager()
    assert ironbeat("ratio") == {"ratio": 0.0, "before": 0.0}
    assert ironbeat("ratio", "0.2") == {"ratio": 0.2, "before": 0.0}
    deadline = time.monotonic() + 5
    while manager.use_celery_ratio != 0.2:
        assert time.monotonic() < deadline
    assert ironbeat("move", "celery") == {"to": "celery", "waiting": 0, "moved": 0, "dry_run": True}


def test_a_directory_that_is_none(documents: Settings, tmp_path: Path) -> None:
    done = subprocess.run(
        [PROGRAM, "documents", "process", str(tmp_path / "nothing")], capture_output=True, text=True
    )
    assert done.returncode == 2 and "is no directory" in done.stderr
