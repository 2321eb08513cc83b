"""When workers are added and taken away, and when they are left alone."""

from __future__ import annotations

from ironbeat.warden.scaling import Load, Rules, State, decide

RULES = Rules(backlog=10, up_seconds=5, down_seconds=60)


def load(waiting: int, workers: int = 2, running: int = 0, startable: int = 6, affordable: int = 9):
    return Load(waiting, workers, running, startable, affordable)


def play(loads, every: float = 1.0, rules: Rules = RULES) -> list[int]:
    """What is decided of loads that are seen one after the other."""
    state, changes = State(), []
    for number, each in enumerate(loads):
        state, change = decide(state, each, number * every, rules)
        changes.append(change)
    return changes


def test_a_backlog_that_stays_adds_workers_a_step_at_a_time() -> None:
    assert play([load(20)] * 12) == [0] * 5 + [1] + [0] * 4 + [1, 0]
    assert play([load(900, workers=8)] * 6)[-1] == 4, "half as many again"


def test_a_backlog_that_goes_by_itself_adds_none() -> None:
    assert not any(play([load(500), load(500), load(3)] * 20))


def test_never_more_than_there_are_and_than_the_host_bears() -> None:
    assert play([load(900, workers=8, startable=1)] * 6)[-1] == 1
    assert play([load(900, workers=8, affordable=2)] * 6)[-1] == 2
    assert not any(play([load(900, startable=0)] * 30))
    assert not any(play([load(900, affordable=0)] * 30))


def test_idle_spares_go_one_by_one_and_much_later() -> None:
    changes = play([load(0, running=3)] * 100)
    assert changes.index(-1) == 60
    assert [n for n, change in enumerate(changes) if change] == [60, 72, 84, 96]


def test_a_queue_that_swings_moves_nothing() -> None:
    swinging = [load(100, running=2)] * 4 + [load(0, running=2)] * 50
    assert not any(play(swinging * 5))


def test_between_the_two_nothing_happens() -> None:
    assert not any(play([load(10, running=3)] * 500))


def test_without_any_worker_a_backlog_counts_as_one_worker_s() -> None:
    assert play([load(10, workers=0)] * 6)[-1] == 1


def test_no_spare_is_none_to_stop() -> None:
    assert not any(play([load(0, running=0)] * 500))
