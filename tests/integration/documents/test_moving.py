"""Canary and rollback under load: nothing lost, nothing done twice."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from typing import Any

import pytest
from programs import PROGRAM, Start

from ironbeat import HybridTaskManager
from ironbeat.settings import Settings
from ironbeat.workloads.documents import canary, pipeline, store, tasks
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


def test_a_canary_stops_by_itself(documents: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's tasks fail, as the ledger has it; RQ's do not."""
    row = {"workers": 1, "waiting": 0, "running": 0, "retried": 0, "p50_ms": 5.0, "p95_ms": 9.0}
    good = {**row, "ended": 100, "failed": 0, "error_rate": 0.0}
    bad = {**row, "ended": 100, "failed": 50, "error_rate": 0.5}
    monkeypatch.setattr(canary.ledger, "compared", lambda since: {"rq": good, "celery": bad})
    found = canary.canary(0.2, seconds=60, bound=Bound())
    assert (found["verdict"], found["ratio"], found["before"]) == ("stopped", 0.0, 0.0)
    assert "error rate is 50.0%" in found["reason"]
    assert HybridTaskManager().use_celery_ratio == 0.0


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
        ended: set[str] = set()
        for _ in range(600):
            ended = {
                id for id in ids if (store.row("document", id=id) or {})["status"] == "completed"
            }
            if len(ended) == len(ids):
                break
            tasks.settle_documents(idle_seconds=30)
            threading.Event().wait(0.5)
        assert ended == set(ids)
    total = 3 * 30 + 4 * 15
    with store.transaction() as cursor:
        runs = cursor.execute(
            "SELECT argsrepr, state, attempt, queue FROM ironbeat.run_history"
            " WHERE task = 'generate_metadata_for_chunk'"
        ).fetchall()
        live = cursor.execute("SELECT count(*) AS n FROM ironbeat.runs").fetchone()
    assert live == {"n": 0}
    # Each chunk one run, each run one execution.
    assert Counter(run["state"] for run in runs) == {"succeeded": total}
    assert len({run["argsrepr"] for run in runs}) == total
    assert {run["attempt"] for run in runs} == {1}
