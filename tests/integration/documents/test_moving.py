"""Canary and rollback under load: nothing lost, nothing done twice."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from programs import PROGRAM, Start

from ironbeat import HybridTaskManager
from ironbeat.settings import Settings
from ironbeat.workloads.documents import QUEUE, canary, pipeline, store, tasks
from ironbeat.workloads.documents.canary import Bound
from ironbeat.workloads.documents.store import StoredChunk

# Programs are started; on a busy machine that alone takes long.
pytestmark = pytest.mark.timeout(600)

TEXT = "Debian is a free operating system. Packages are installed with apt."


def ironbeat(*arguments: str, status: int = 0) -> Any:
    done = subprocess.run(
        [PROGRAM, "documents", *arguments, "--json"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def submitted(documents: int, chunks: int) -> list[str]:
    ids = [f"doc-{n}" for n in range(documents)]
    for id in ids:
        rows = [StoredChunk(f"{id}-{n}", n, "", f"{TEXT} {id} {n}") for n in range(chunks)]
        store.add_document(id, rows, path=f"{id}.txt")
        pipeline.start(id)
    return ids


def test_dry_runs_change_nothing(documents: Settings) -> None:
    HybridTaskManager().set_ratio(0.3)
    assert ironbeat("canary", "--ratio", "0.5", "--dry-run")["before"] == 0.3
    assert ironbeat("rollback", "--dry-run")["before"] == 0.3
    assert HybridTaskManager().use_celery_ratio == 0.3


def test_a_rollback_switches_use_celery_off(
    documents: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "env"
    file.write_text("USE_CELERY=true\n")
    file.chmod(0o600)
    monkeypatch.setenv("IRONBEAT_ENV_FILE", str(file))
    found = ironbeat("rollback", "--seconds", "10")
    assert (found["before"], found["ratio"], found["drained"]) == (1.0, 0.0, True)
    assert found["use_celery"] is None and file.read_text() == "USE_CELERY='false'\n"
    # Where it cannot be switched off it is named, and the stored ratio holds.
    monkeypatch.setenv("USE_CELERY", "true")
    assert ironbeat("rollback", "--seconds", "10")["use_celery"] == "USE_CELERY (environment)"
    assert ironbeat("ratio")["ratio"] == 0.0


def test_a_canary_stops_by_itself(documents: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's tasks fail, as the ledger has it; RQ's do not."""
    row = {"workers": 1, "waiting": 0, "running": 0, "retrying": 0, "retried": 0}
    row |= {"p50_ms": 5.0, "p95_ms": 9.0}
    good = {**row, "ended": 100, "failed": 0, "error_rate": 0.0}
    bad = {**row, "ended": 100, "failed": 50, "error_rate": 0.5}
    monkeypatch.setattr(canary.ledger, "compared", lambda since: {"rq": good, "celery": bad})
    found = canary.canary(0.2, seconds=60, bound=Bound())
    assert (found["verdict"], found["ratio"], found["before"]) == ("stopped", 0.0, 0.0)
    assert "error rate is 50.0%" in found["reason"]
    assert HybridTaskManager().use_celery_ratio == 0.0


def completed(ids: list[str]) -> None:
    """Wait until these documents have all their metadata."""

    def ended() -> bool:
        tasks.settle_documents(idle_seconds=30)
        return all((store.row("document", id=id) or {})["status"] == "completed" for id in ids)

    deadline = time.monotonic() + 300
    while not ended():
        assert time.monotonic() < deadline, [store.row("document", id=id) for id in ids]
        time.sleep(0.5)


def chunk_runs() -> list[dict[str, Any]]:
    """The ended runs of chunks; none is left under way."""
    with store.transaction() as cursor:
        assert cursor.execute("SELECT count(*) AS n FROM ironbeat.runs").fetchone() == {"n": 0}
        return cursor.execute(
            "SELECT argsrepr, state, attempt, queue, error FROM ironbeat.run_history"
            " WHERE task = 'generate_metadata_for_chunk'"
        ).fetchall()


@pytest.mark.slow
def test_a_canary_stops_when_celery_really_fails(start: Start, tmp_path: Path) -> None:
    """Celery's worker has a broken package; what failed there is done by RQ."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "yake.py").write_text("raise OSError('a shared library is missing')\n")
    with start("rq-worker"), start("worker", PYTHONPATH=str(tmp_path / "broken")):
        watched: list[dict[str, Any]] = []
        ids = submitted(4, 25)
        found = canary.canary(
            0.5, seconds=120, bound=Bound(least=6), tell=lambda figures: watched.append(figures)
        )
        assert (found["verdict"], found["ratio"]) == ("stopped", 0.0), found
        assert "Celery" in found["reason"] and found["celery"]["retrying"] >= 2
        assert found["rq"]["error_rate"] in (None, 0.0)
        assert HybridTaskManager().use_celery_ratio == 0.0
        completed(ids)
    runs = chunk_runs()
    # Those that failed on Celery are the same runs, and succeeded on RQ.
    assert Counter(run["state"] for run in runs) == {"succeeded": 100}
    assert len({run["argsrepr"] for run in runs}) == 100
    again = [run for run in runs if run["attempt"] > 1]
    assert len(again) >= 2 and {run["queue"] for run in again} == {f"rq:{QUEUE}"}


@pytest.mark.slow
def test_a_canary_stops_when_celery_is_really_slower(start: Start, slow_model: str) -> None:
    """Celery's worker asks a language model that takes its time; RQ's does not."""
    with start("rq-worker"), start("worker", IRONBEAT_DOCUMENTS_LLM_URL=slow_model):
        ids = submitted(4, 25)
        found = canary.canary(0.5, seconds=120, bound=Bound(slower=2.0, least=6))
        assert (found["verdict"], found["ratio"]) == ("stopped", 0.0), found
        assert "95th percentile" in found["reason"]
        assert found["celery"]["p95_ms"] > 2 * found["rq"]["p95_ms"]
        completed(ids)
    assert Counter(run["state"] for run in chunk_runs()) == {"succeeded": 100}


@pytest.fixture
def slow_model() -> Iterator[str]:
    """The address of a language model that takes three seconds for each answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(3)
            said = json.dumps({"summary": "Debian is free.", "entities": []})
            self.send_response(200)
            self.end_headers()
            answer = {"choices": [{"message": {"content": said}}]}
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: Any) -> None:
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@pytest.mark.slow
def test_a_share_forth_and_all_back_under_load(start: Start) -> None:
    """Documents come in while the ratio goes 0 → 0.5 → 0 by canary and rollback."""
    ids = submitted(3, 30)
    with start("rq-worker"), start("worker"):
        results: dict[str, Any] = {}

        def watch() -> None:
            results["canary"] = canary.canary(
                0.5, seconds=8, bound=Bound(errors=0.5, slower=1000.0, least=1)
            )

        watching = threading.Thread(target=watch)
        watching.start()
        for n in range(4):
            id = f"late-{n}"
            rows = [StoredChunk(f"{id}-{k}", k, "", f"{TEXT} {id} {k}") for k in range(15)]
            store.add_document(id, rows, path=f"{id}.txt")
            pipeline.start(id)
            ids.append(id)
        watching.join(300)
        assert results["canary"]["verdict"] in ("kept", "undecided")
        assert results["canary"]["ratio"] == 0.5
        back = canary.rollback(seconds=240)
        assert back["drained"] and back["ratio"] == 0.0 and back["before"] == 0.5
        completed(ids)
    total = 3 * 30 + 4 * 15
    runs = chunk_runs()
    # Each chunk one run, each run one execution.
    assert {run["error"] for run in runs} == {None}
    assert Counter(run["state"] for run in runs) == {"succeeded": total}
    assert len({run["argsrepr"] for run in runs}) == total
    assert {run["attempt"] for run in runs} == {1}
