"""A host's processes and facts put together."""

from __future__ import annotations

from typing import Any

from scripts.ops.inventory import Host
from scripts.ops.processes import Process
from scripts.ops.snapshot import describe, memory_mb, unreachable

WORKERS = Host("one", frozenset({"ironbeat", "workers"}))


def process(name: str, state: str = "RUNNING", pid: int = 10, **more: Any) -> Process:
    group = name.partition("_")[0]
    defaults = {"seconds": 60, "exit_status": 0, "problem": "", "logfile": ""}
    return Process(group=group, name=name, state=state, pid=pid, **(defaults | more))


def facts(**more: Any) -> dict[str, Any]:
    return {"processes": {}, "units": {}, "release": "new", **more}


def row(ppid: int, megabytes: int, release: str | None = None) -> dict[str, Any]:
    return {"ppid": ppid, "rss_kb": megabytes * 1024, "release": release, "seconds": 5.0}


def test_memory_is_that_of_the_whole_family() -> None:
    found = {"1": row(0, 5), "10": row(1, 100), "11": row(10, 50), "12": row(11, 25)}
    assert memory_mb(10, found) == 175
    assert memory_mb(12, found) == 25
    assert memory_mb(99, found) is None


def test_a_process_that_runs_an_older_release_waits_for_its_restart() -> None:
    told = facts(processes={"10": row(1, 80, "old"), "11": row(1, 80, "new")})
    seen = describe(WORKERS, told, [process("worker_00"), process("worker_01", pid=11)])
    assert [program.name for program in seen.waiting] == ["worker_00"]
    assert seen.complaints == ()


def test_a_process_that_does_not_run_is_complained_of() -> None:
    processes = [
        process("worker_00", "FATAL", 0, problem="can't find command"),
        process("worker_01", "BACKOFF", 0, exit_status=5),
        process("worker_02", "STOPPED", 0),
        process("worker_03", "STARTING"),
    ]
    assert describe(WORKERS, facts(), processes).complaints == (
        "one: worker_00 is fatal: can't find command",
        "one: worker_01 is backoff with status 5",
        "one: worker_02 is stopped",
    )


def test_a_spare_that_is_stopped_is_as_it_should_be() -> None:
    processes = [process("worker_00"), process("spare_02", "STOPPED", 0)]
    assert describe(WORKERS, facts(), processes).complaints == ()
    gone = [process("worker_00"), process("spare_02", "FATAL", 0, problem="no such file")]
    assert describe(WORKERS, facts(), gone).complaints == ("one: spare_02 is fatal: no such file",)


def test_a_program_that_the_groups_ask_for_must_be_there() -> None:
    host = Host("one", frozenset({"workers", "beat"}))
    seen = describe(host, facts(), [process("worker_00")])
    assert seen.complaints == ("one: beat is not there; run site.yml",)


def test_a_supervisord_that_does_not_answer_matters_where_it_has_programs() -> None:
    assert describe(WORKERS, facts(), "no answer").complaints == ("one: no answer",)
    store = Host("store", frozenset({"monitoring"}))
    assert describe(store, facts(), "no answer").complaints == ()


def test_the_units_of_a_store_are_its_programs() -> None:
    store = Host("store", frozenset({"database", "broker"}))
    units = {"postgresql@17-main.service": {"state": "active", "detail": "running", "pid": 7}}
    told = facts(units=units, processes={"7": row(1, 30), "8": row(7, 12)})
    seen = describe(store, told, "none expected")
    (program,) = seen.programs
    assert (program.name, program.state, program.memory_mb) == ("postgresql@17-main", "running", 42)
    assert seen.complaints == ("store: redis-server.service is not there; run site.yml",)


def test_a_unit_that_failed_is_complained_of() -> None:
    store = Host("store", frozenset({"broker"}))
    units = {"redis-server.service": {"state": "failed", "detail": "failed", "pid": 0}}
    seen = describe(store, facts(units=units), "none expected")
    assert seen.complaints == ("store: redis-server is failed (failed)",)


def test_a_host_that_cannot_be_reached_says_so_and_nothing_else() -> None:
    seen = unreachable(WORKERS, "connection refused", "Try again.")
    assert seen.complaints == ("one: connection refused",)
    assert seen.programs == ()
