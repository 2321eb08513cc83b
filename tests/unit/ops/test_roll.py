"""In which order processes are restarted, and what is refused."""

from __future__ import annotations

import pytest

from scripts.ops.failures import NOT_FOUND, REFUSED, OpsError
from scripts.ops.processes import Process
from scripts.ops.roll import Candidate, chosen, plan, typical_seconds


def candidate(
    host: str, name: str, *, state: str = "RUNNING", stop: int = 90, task: float = 0, changed=False
) -> Candidate:
    group = name.partition("_")[0]
    process = Process(group, name, state, 1 if state == "RUNNING" else 0, 60, 0, "", "")
    return Candidate(host, process, stop, 3, changed, task)


def order(candidates: list[Candidate], serial: int = 1) -> list[dict[str, list[str]]]:
    return [
        {
            host: [name for step in steps for name in step.names]
            for host, steps in wave.steps.items()
        }
        for wave in plan(candidates, serial)
    ]


def test_programs_that_stop_at_once_come_before_workers() -> None:
    found = order(
        [
            candidate("a", "worker_00"),
            candidate("a", "flower"),
            candidate("a", "beat"),
            candidate("b", "beat"),
            candidate("a", "api"),
        ]
    )
    assert found == [
        {"a": ["beat"]},
        {"b": ["beat"]},
        {"a": ["api"]},
        {"a": ["flower"]},
        {"a": ["worker:worker_00"]},
    ]


def test_hosts_with_short_drains_and_then_with_short_tasks_come_first() -> None:
    found = order(
        [
            candidate("documents", "worker_00", stop=1830, task=1),
            candidate("slow", "worker_00", stop=930, task=40),
            candidate("quick", "worker_00", stop=930, task=0.2),
        ]
    )
    assert [list(wave) for wave in found] == [["quick"], ["slow"], ["documents"]]


def test_a_host_restarts_one_process_at_a_time_and_what_is_down_first() -> None:
    (wave,) = plan(
        [
            candidate("a", "worker_00"),
            candidate("a", "worker_01"),
            candidate("a", "worker_02", state="FATAL"),
        ]
    )
    steps = wave.steps["a"]
    assert [step.names for step in steps] == [
        ("worker:worker_02",),
        ("worker:worker_00",),
        ("worker:worker_01",),
    ]
    assert [step.running for step in steps] == [False, True, True]


def test_serial_takes_so_many_hosts_at_a_time() -> None:
    candidates = [candidate(host, f"worker_0{n}") for host in "abcde" for n in range(2)]
    assert [list(wave) for wave in order(candidates, 2)] == [["a", "b"], ["c", "d"], ["e"]]


def test_a_changed_group_goes_together() -> None:
    (wave,) = plan([candidate("a", f"worker_0{n}", changed=True) for n in range(2)])
    (step,) = wave.steps["a"]
    assert step.replace
    assert step.names == ("worker:worker_00", "worker:worker_01")


def test_a_serial_that_would_leave_nobody_at_work_is_refused() -> None:
    beats = [candidate("a", "beat"), candidate("b", "beat")]
    with pytest.raises(OpsError, match="would stop every beat at once") as error:
        plan(beats, 2)
    assert error.value.status == REFUSED
    assert len(plan(beats, 1)) == 2
    workers = [candidate(host, f"worker_0{n}") for host in "ab" for n in range(2)]
    assert len(plan(workers, 2)) == 1
    changed = [candidate(host, f"worker_0{n}", changed=True) for host in "ab" for n in range(2)]
    with pytest.raises(OpsError, match="would stop every worker at once"):
        plan(changed, 2)


def test_what_is_down_anyway_does_not_forbid_a_serial() -> None:
    assert len(
        plan([candidate("a", "beat", state="FATAL"), candidate("b", "beat", state="FATAL")], 2)
    )


@pytest.mark.parametrize(
    ("programs", "expected"),
    [
        ([], ["beat", "worker_00", "worker_01"]),
        (["worker"], ["worker_00", "worker_01"]),
        (["worker_01"], ["worker_01"]),
        (["worker:worker_01"], ["worker_01"]),
        (["*_00", "beat"], ["worker_00", "beat"]),
    ],
)
def test_programs_are_chosen_by_program_process_or_pattern(
    programs: list[str], expected: list[str]
) -> None:
    candidates = [candidate("a", name) for name in ("beat", "worker_00", "worker_01")]
    assert [each.process.name for each in chosen(candidates, programs)] == expected


def test_a_spare_that_nobody_needs_stays_stopped() -> None:
    spares = [candidate("a", "spare_00", state="STOPPED"), candidate("a", "spare_01")]
    assert [each.process.name for each in chosen(spares, [])] == ["spare_01"]
    stopped = candidate("a", "worker_00", state="STOPPED")
    assert chosen([stopped], []) == [stopped]


def test_a_program_that_is_nowhere_is_refused() -> None:
    with pytest.raises(OpsError) as error:
        chosen([candidate("a", "beat")], ["wroker"])
    assert error.value.status == NOT_FOUND
    assert error.value.hint == "There are: beat."


def test_how_long_tasks_typically_take_is_told_by_most_of_them() -> None:
    runs = [{"queue": "short", "seconds": 0.1}] * 99 + [{"queue": "short", "seconds": 500.0}]
    runs += [{"queue": "long", "seconds": 60.0}, {"queue": "long", "seconds": None}]
    assert typical_seconds(runs) == {"short": 0.1, "long": 60.0}
