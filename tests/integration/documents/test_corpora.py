"""Debian's FAQ, and FAQ and Reference whole, in both languages, through both queues at once.

scripts/corpora fetches them (with apt); without them this is skipped. What it does in minutes over
hundreds of pages, ``test_a_directory_through_both_queues`` does in seconds over a few.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from programs import PROGRAM, Start

from ironbeat import HybridTaskManager
from ironbeat.workloads.documents import QUEUE, store

CORPORA = Path(__file__).parents[3] / ".cache" / "corpora"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(
        not (CORPORA / "complete").exists(),
        reason="the documents are not here: scripts/corpora fetches them (it needs apt)",
    ),
]
KEYS = {"language", "token_count", "keywords", "summary", "entities", "processed_at"}


@pytest.mark.parametrize(
    ("pattern", "files", "chunks_at_least"), [("faq-*/*.html", 34, 400), ("*/*", 72, 5000)]
)
def test_every_chunk_gets_its_metadata(
    start: Start, tmp_path: Path, pattern: str, files: int, chunks_at_least: int
) -> None:
    library = tmp_path / "library"
    for path in (CORPORA / "documents").glob(pattern):
        target = library / path.relative_to(CORPORA / "documents")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    HybridTaskManager().set_ratio(0.5)
    arguments = ["documents", "process", str(library), "--json"]
    with start("rq-worker"), start("worker"):
        done = subprocess.run(
            [PROGRAM, *arguments, "--output", str(tmp_path / "out")],
            capture_output=True,
            text=True,
            timeout=2300,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["files"], found["skipped"], found["failed"]) == (files, {}, 0)
    assert found["done"] == found["chunks"] > chunks_at_least
    with store.transaction() as cursor:
        chunks = cursor.execute(
            "SELECT side, status, metadata, text, run_id FROM documents.chunks"
        ).fetchall()
        runs = cursor.execute(
            "SELECT queue, state, attempt FROM ironbeat.run_history"
            " WHERE task = 'generate_metadata_for_chunk'"
        ).fetchall()
        documents = cursor.execute("SELECT status, language FROM documents.documents").fetchall()
    assert {chunk["status"] for chunk in chunks} == {"completed"}
    for chunk in chunks:
        made = chunk["metadata"]
        assert made.keys() >= KEYS and made["summary"] and made["token_count"] > 0
    sides = Counter(chunk["side"] for chunk in chunks)
    print(f"\n{found['chunks']} chunks of {found['files']} files: {dict(sides)}")
    assert 0.4 < sides["rq"] / len(chunks) < 0.6 and sides.keys() == {"rq", "celery"}
    # Each chunk was one run, and was executed once.
    assert Counter(run["queue"] for run in runs) == {
        f"rq:{QUEUE}": sides["rq"],
        QUEUE: sides["celery"],
    }
    assert {(run["state"], run["attempt"]) for run in runs} == {("succeeded", 1)}
    assert len({chunk["run_id"] for chunk in chunks}) == len(chunks)
    assert {each["status"] for each in documents} == {"completed"}
    assert {each["language"] for each in documents} == {"en", "zh"}
    lines = sum(len(path.read_text().splitlines()) for path in (tmp_path / "out").rglob("*.jsonl"))
    assert lines == len(chunks)
