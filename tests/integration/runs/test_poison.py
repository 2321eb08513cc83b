"""Tasks that kill their workers: so often and no oftener, and their neighbours do not suffer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.hazards import Crew, application, crew, ended

from ironbeat.runs import blackbox
from ironbeat.runs.ledger import Ledger
from ironbeat.settings import Settings

LIMIT = 3
QUICKLY = {"IRONBEAT_LEASE_SECONDS": "2", "IRONBEAT_LEASE_RENEW_SECONDS": "0.5"}


@pytest.fixture(scope="module")
def hazards(
    module_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ModuleType, Path]]:
    traces = tmp_path_factory.mktemp("hazards") / "traces"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICKLY.items():
            patch.setenv(name, value)
        yield application(patch, traces), traces


@pytest.fixture(scope="module", params=["ironbeat", "prefork"])
def staff(
    request: pytest.FixtureRequest,
    hazards: tuple[ModuleType, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[ModuleType, Crew]]:
    module, traces = hazards
    traces.unlink(missing_ok=True)
    with crew(tmp_path_factory.mktemp("crew"), traces, request.param) as found:
        found.start("w0")
        yield module, found


@pytest.mark.parametrize(
    "poison",
    [
        "segfault",
        pytest.param("vanish", marks=pytest.mark.slow),
        pytest.param("killed_for_memory", marks=pytest.mark.slow),
    ],
)
def test_a_task_that_kills_its_worker_is_buried_and_its_neighbours_are_not_punished(
    staff: tuple[ModuleType, Crew], poison: str
) -> None:
    module, crew = staff
    ledger: Ledger = module.app.ironbeat.ledger
    # What the worker knows to be fast it takes many of at a time.
    warm = [module.quick.delay(f"{poison}-warm-{n}").id for n in range(200)]
    ended(crew, ledger, warm[-1])
    with module.app.producer_or_acquire() as producer, producer.batch():
        before = [
            module.quick.apply_async((f"{poison}-a{n}",), producer=producer).id for n in range(20)
        ]
        deadly = getattr(module, poison).apply_async(producer=producer).id
        after = [
            module.quick.apply_async((f"{poison}-b{n}",), producer=producer).id for n in range(20)
        ]
    run = ended(crew, ledger, deadly, 90)
    assert (run.state, run.crashes) == ("dead", LIMIT)
    assert crew.count(poison) == LIMIT
    assert run.reason == f"its worker died {LIMIT} times while running it"
    # Its last copy brings its message, so that it can be replayed.
    crew.wait(lambda: ledger.get(deadly).message)
    for id in (*before, *after):
        neighbour = ended(crew, ledger, id)
        assert (neighbour.state, neighbour.crashes) == ("succeeded", 0)
    names = [what for event, what, _, _ in crew.traces() if event == "quick"]
    assert {f"{poison}-{side}{n}" for side in "ab" for n in range(20)} <= set(names)
    if crew.pool == "ironbeat":
        assert [each["error"].partition(" (")[0] for each in run.attempts] == [
            "the worker died: Fatal Python error: Segmentation fault"
            if poison == "segfault"
            else "the worker died"
        ] * LIMIT
    if poison == "segfault" and crew.pool == "ironbeat":
        assert "in string_at" in run.traceback and "in segfault" in run.traceback
        assert "about to read what is not there" in run.traceback
        assert "hunter2secret" not in run.traceback
    if poison == "vanish" and crew.pool == "ironbeat":
        assert "about to vanish" in run.traceback


def test_what_the_dead_left_is_cleared_away(
    staff: tuple[ModuleType, Crew], module_settings: Settings
) -> None:
    _, crew = staff
    boxes = module_settings.state_dir / "processes"

    def cleared() -> bool:
        return all(blackbox.alive(report) for report in blackbox.read(boxes))

    if crew.pool == "ironbeat":
        crew.wait(cleared)


def test_a_worker_that_dies_between_two_tasks_raises_no_suspicion(
    staff: tuple[ModuleType, Crew],
) -> None:
    module, crew = staff
    ids = [module.nap.delay(0.05, f"k{n}").id for n in range(60)]
    ended(crew, module.app.ironbeat.ledger, ids[10])
    crew.programs["w0"].process.kill()
    runs = [ended(crew, module.app.ironbeat.ledger, id) for id in ids]
    assert {run.state for run in runs} == {"succeeded"}
    executing = 1 if crew.pool == "ironbeat" else 2
    assert sum(run.crashes for run in runs) <= executing
