"""The ledger against a real PostgreSQL: claims, fencing, history, outbox."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ironbeat import database
from ironbeat.runs.ledger import Ledger
from ironbeat.runs.model import Claim, Filters, LedgerUnavailable, NewRun, Outcome, RunNotFound
from ironbeat.runs.pruning import make_partitions, partition_name, partitions, prune
from ironbeat.runs.recorder import Recorder

NOW = datetime.now(UTC)
MESSAGE = '{"body": [[], {}, {}], "headers": {}, "properties": {}, "routing_key": "default"}'


@pytest.fixture
def ledger(database_url: str) -> Ledger:
    found = Ledger(database_url, lease_seconds=5)
    hold(found, "a", "b")
    return found


def hold(ledger: Ledger, *leases: str, steady: bool = True, lapsed: bool = False) -> None:
    """Write leases as their holders would have, long ago or just now."""
    with database.connection(ledger._url) as connection:
        for lease in leases:
            connection.execute(
                "INSERT INTO ironbeat.leases (id, kind, name, host, pid, expires_at, steady_since)"
                " VALUES (%(id)s, 'worker', %(id)s, 'h', 1, now() + %(left)s * interval '1 second',"
                " now() - %(steady)s * interval '1 second') ON CONFLICT (id) DO UPDATE"
                " SET expires_at = excluded.expires_at, steady_since = excluded.steady_since",
                {"id": lease, "left": -1 if lapsed else 60, "steady": 60 if steady else 0},
            )


def claim(id: str, **more: object) -> Claim:
    return Claim(id=id, task="t", created_at=NOW, **more)  # type: ignore[arg-type]


def take(ledger: Ledger, id: str, lease: str = "a", **more: object):
    return ledger.claim([claim(id, **more)], lease=lease, worker=f"worker-{lease}")[id]


def new(id: str, **more: object) -> NewRun:
    return NewRun(id=id, task="t", created_at=NOW, message=MESSAGE, **more)  # type: ignore[arg-type]


def test_a_plain_message_is_claimed_once(ledger: Ledger) -> None:
    assert take(ledger, "1").attempt == 1
    second = take(ledger, "1", "b")
    assert (second.attempt, second.refusal, second.state) == (None, "running", "running")
    run = ledger.get("1")
    assert (run.state, run.attempt, run.lease_id, run.worker) == ("running", 1, "a", "worker-a")


def test_an_outcome_moves_the_run_to_the_history(ledger: Ledger) -> None:
    take(ledger, "1")
    taken = ledger.settle(
        [Outcome("1", 1, "succeeded", runtime=2.0, age=1.0, result='{"answer": 42}')]
    )
    assert taken == {"1"}
    run = ledger.get("1")
    assert run.ended and run.result == {"answer": 42}
    assert run.seconds is not None and run.seconds <= 2.0
    copy = take(ledger, "1", "b")
    assert (copy.refusal, copy.state, copy.result) == ("ended", "succeeded", {"answer": 42})
    with pytest.raises(RunNotFound):
        ledger.get("other")


def test_a_copy_without_creation_time_finds_the_outcome_too(ledger: Ledger) -> None:
    take(ledger, "1")
    ledger.settle([Outcome("1", 1, "failed", error="ValueError: no")])
    foreign = Claim(id="1", task="t")
    verdict = ledger.claim([foreign], lease="b", worker="w")["1"]
    assert (verdict.refusal, verdict.state, verdict.error) == ("ended", "failed", "ValueError: no")
    with database.connection(ledger._url) as connection:
        assert connection.execute("SELECT count(*) FROM ironbeat.runs").fetchone() == (0,)


def test_an_outcome_of_an_older_attempt_is_refused(ledger: Ledger) -> None:
    take(ledger, "1", "a")
    hold(ledger, "a", lapsed=True)
    assert take(ledger, "1", "b").attempt == 2
    assert ledger.settle([Outcome("1", 1, "succeeded", result='"old"')]) == set()
    assert ledger.settle([Outcome("1", 2, "succeeded", result='"new"')]) == {"1"}
    run = ledger.get("1")
    assert (run.result, run.attempt, run.crashes) == ("new", 2, 1)


def test_nobody_takes_over_before_holding_its_own_lease_for_a_period(ledger: Ledger) -> None:
    take(ledger, "1", "a")
    hold(ledger, "a", lapsed=True)
    hold(ledger, "b", steady=False)
    assert take(ledger, "1", "b").refusal == "running"
    hold(ledger, "b", lapsed=True)
    assert take(ledger, "1", "b").refusal == "running"
    hold(ledger, "b")
    assert take(ledger, "1", "b").attempt == 2


def test_a_retry_is_a_new_attempt_even_while_the_first_is_not_written(ledger: Ledger) -> None:
    take(ledger, "1", "a")
    assert take(ledger, "1", "b", retries=1).attempt == 2
    assert take(ledger, "1", "a", retries=0).refusal == "superseded"
    late = Outcome("1", 1, "retrying", retries=1, replacements=0)
    assert ledger.settle([late]) == set()


def test_a_retry_outcome_keeps_the_run_live_with_its_attempts(ledger: Ledger) -> None:
    take(ledger, "1")
    ledger.settle([Outcome("1", 1, "retrying", error="OSError: x", retries=1, replacements=0)])
    run = ledger.get("1")
    assert (run.state, run.retries, run.lease_id) == ("retrying", 1, None)
    assert [a["error"] for a in run.attempts] == ["OSError: x"]
    assert take(ledger, "1", "b", retries=1).attempt == 2


def test_created_runs_wait_in_the_outbox_until_published(ledger: Ledger) -> None:
    runs = [new("1"), new("2", publish_after=60.0), new("3", publish_after=None)]
    assert ledger.create(runs) == {"1", "2", "3"}
    assert ledger.create([new("1"), new("4")]) == {"4"}
    due = ledger.take_due(limit=10, hold=5)
    assert {row[0] for row in due} == {"1", "4"}
    assert due[0][3]["routing_key"] == "default"
    assert ledger.take_due(limit=10, hold=5) == []
    ledger.mark_published(["1"])
    assert (ledger.get("1").state, ledger.get("1").publish_at) == ("published", None)
    assert ledger.get("4").state == "pending"


def test_what_was_taken_from_the_outbox_by_one_who_died_is_due_again(ledger: Ledger) -> None:
    ledger.create([new("1")])
    assert len(ledger.take_due(limit=10, hold=0)) == 1
    assert len(ledger.take_due(limit=10, hold=0)) == 1


def test_a_note_that_comes_late_does_not_bring_a_run_back(ledger: Ledger) -> None:
    take(ledger, "1")
    ledger.record([new("1"), new("2")])
    assert (ledger.get("1").state, ledger.get("2").state) == ("running", "published")
    ledger.settle([Outcome("1", 1, "succeeded")])
    ledger.record([new("1")])
    with database.connection(ledger._url) as connection:
        live = connection.execute("SELECT id FROM ironbeat.runs").fetchall()
    assert live == [("2",)]


def test_unused_claims_go_back_without_counting(ledger: Ledger) -> None:
    take(ledger, "1")
    ledger.release(["1"], lease="a")
    assert (ledger.get("1").state, ledger.get("1").attempt) == ("published", 0)
    assert take(ledger, "1", "b").attempt == 1


def test_cancelling(ledger: Ledger) -> None:
    ledger.create([new("1")])
    assert ledger.end(["1"], "cancelled", "by hand") == {"1"}
    assert take(ledger, "1").state == "cancelled"
    take(ledger, "2")
    assert ledger.end(["2"], "cancelled", "by hand") == set()
    assert ledger.request_cancel(["1", "2", "3"]) == {"2": "worker-a"}
    assert ledger.cancel_requests("a") == ["2"]
    ledger.entomb("3", "cancelled", "by hand", task="t", queue="q", created_at=NOW)
    assert take(ledger, "3").state == "cancelled"


def test_overdue_runs_expire(ledger: Ledger) -> None:
    ledger.create([new("1", expires_at=NOW - timedelta(seconds=1)), new("2")])
    take(ledger, "3", expires_at=NOW - timedelta(seconds=1))
    assert ledger.expire_overdue() == {"1"}
    assert ledger.get("1").state == "expired"


def test_many_claims_of_one_run_at_once_admit_one(ledger: Ledger) -> None:
    """Threads claim overlapping batches in different orders: no deadlock, one holder each."""
    ids = [f"r{i:03}" for i in range(60)]
    granted: list[str] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        order = ids if number % 2 else list(reversed(ids))
        for start in range(0, 60, 20):
            batch = [claim(id) for id in order[start : start + 20]]
            verdicts = ledger.claim(batch, lease="a", worker=f"w{number}")
            mine = [v for v in verdicts.values() if v.attempt is not None]
            with lock:
                granted.extend(v.id for v in mine)
            ledger.settle([Outcome(v.id, v.attempt or 0, "succeeded") for v in mine])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(granted) == ids
    assert {run.state for run in ledger.find(Filters(limit=100))} == {"succeeded"}


def test_finding(ledger: Ledger) -> None:
    ledger.create([replace(new(f"{i}"), created_at=NOW + timedelta(seconds=i)) for i in range(5)])
    take(ledger, "4")
    ledger.settle([Outcome("4", 1, "failed", error="KeyError: 'x%'")])
    assert [run.id for run in ledger.find(Filters(limit=2))] == ["4", "3"]
    page = ledger.find(Filters(before=(NOW + timedelta(seconds=3), "3"), limit=2))
    assert [run.id for run in page] == ["2", "1"]
    assert [run.id for run in ledger.find(Filters(state="failed"))] == ["4"]
    assert [run.id for run in ledger.find(Filters(text="'x%'"))] == ["4"]
    assert ledger.find(Filters(text="50%")) == []
    assert [run.id for run in ledger.find(Filters(until=NOW + timedelta(seconds=1)))] == ["0"]


def test_text_that_postgresql_cannot_hold_is_no_obstacle(ledger: Ledger) -> None:
    message = '{"body": [["a\\u0000b"], {}, {}], "headers": {}, "routing_key": "default"}'
    assert ledger.create([replace(new("1"), message=message)]) == {"1"}
    due = ledger.take_due(limit=1, hold=1)
    assert due[0][3]["body"][0] == ["a\x00b"]


@pytest.mark.parametrize("text", ["a\x00b", "a\\x00b", "\\\x00", "\ud800", "'\\u0000'"])
def test_any_text_in_an_argument_can_be_noted(ledger: Ledger, text: str) -> None:
    ledger.record([replace(new("1"), argsrepr=text, message=None)])
    shown = ledger.get("1").argsrepr
    assert shown is not None and "\x00" not in shown
    assert take(ledger, "1", argsrepr=text).attempt == 1
    ledger.settle([Outcome("1", 1, "failed", error=text, reason=text)])
    assert ledger.get("1").state == "failed"


def test_a_row_that_is_refused_keeps_no_other_back(ledger: Ledger) -> None:
    recorder = Recorder(ledger, interval=3600)
    for id in ("1", "2", "3"):
        take(ledger, id)
        broken = "{not json" if id == "2" else "1"
        recorder.outcome(Outcome(id, 1, "succeeded", result=broken))
    recorder.close()
    assert [ledger.get(id).result for id in ("1", "2", "3")] == [1, None, 1]
    assert ledger.get("2").reason == "its texts could not be stored"


def test_of_very_many_notes_the_newest_stay(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ironbeat.runs.recorder.MAX_NOTES", 3)
    recorder = Recorder(ledger, interval=3600)
    for id in ("1", "2", "3", "4", "5"):
        recorder.note(new(id))
    assert caplog.text.count("the ledger hears of the oldest ones only when a worker begins") == 1
    recorder.close()
    assert recorder.counts.notes_dropped == 2
    assert {run.id for run in ledger.find(Filters())} == {"3", "4", "5"}


def test_partitions_come_and_go_with_their_rows(ledger: Ledger) -> None:
    take(ledger, "1")
    ledger.settle([Outcome("1", 1, "succeeded")])
    with database.connection(ledger._url) as connection:
        made = make_partitions(connection)
        assert partition_name(NOW.date()) in made
        assert make_partitions(connection) == []
        rows = connection.execute("SELECT count(*) FROM ironbeat.run_history_other").fetchone()
        assert rows == (0,)
        connection.execute(
            "CREATE TABLE ironbeat.run_history_20200101 PARTITION OF ironbeat.run_history"
            " FOR VALUES FROM ('2020-01-01Z') TO ('2020-01-02Z')"
        )
    assert ledger.get("1").state == "succeeded"
    assert take(ledger, "1").refusal == "ended"
    report = prune(days=30, url=ledger._url)
    assert report["dropped"] == ["run_history_20200101"]
    with database.connection(ledger._url) as connection:
        assert "run_history_20200101" not in partitions(connection)


def test_an_unreachable_database_is_said_so() -> None:
    ledger = Ledger("postgresql://nobody@127.0.0.1:9/none")
    with pytest.raises(LedgerUnavailable, match="PostgreSQL cannot be reached"):
        ledger.get("1")


def test_finding_by_what_a_run_is_called(ledger: Ledger) -> None:
    ledger.create(
        [
            replace(new("a"), task="shop.open", queue="docks", schedule_name="nightly sum"),
            replace(new("b"), task="shop.close", queue="back_slash\\"),
            replace(new("c"), task="mail", queue="docks"),
        ]
    )
    taken = [
        replace(claim("b"), task="shop.close", queue="back_slash\\"),
        replace(claim("c"), task="mail", queue="docks"),
    ]
    ledger.claim(taken, lease="a", worker="worker-a")
    ledger.settle([Outcome("b", 1, "failed")])

    def found(*names: str, **conditions: Any) -> list[str]:
        return sorted(run.id for run in ledger.find(Filters(names=names, **conditions)))

    assert found("SHOP") == ["a", "b"]
    assert found("docks") == ["a", "c"]
    assert found("docks", "shop") == ["a"]
    assert found("failed") == ["b"]
    assert found("night", "sum") == ["a"]
    assert found("back_slash\\") == ["b"]
    assert found("d_cks") == found("%") == []
    # One that is being executed is found by its worker, too.
    assert found("WORKER-A", "docks") == ["c"]
    # States that only live runs have, and those that only ended ones have.
    assert found(states=("running",)) == ["c"]
    assert found(states=("pending", "running")) == ["a", "c"]
    assert found(states=("running", "failed")) == ["b", "c"]
