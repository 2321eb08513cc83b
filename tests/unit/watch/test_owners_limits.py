"""The owners' normal values and alert rules, at their edges."""

import pytest

from ironbeat.watch.limits import Measured, broken_limits, judge_limits

GOOD = Measured(
    success_rate=0.951,
    error_rate=0.05,
    mean_run_seconds=29.9,
    queue_lengths={"default": 9},
    worker_memory_mb=511.9,
    beat_response=4.9,
    beats=1,
    workers=1,
    longest_running_seconds=600.0,
    memory_share=0.8,
    silence=30.0,
    missed=0,
    dead_letters=0,
    ended=(),
)


def changed(**fields):
    values = {name: getattr(GOOD, name) for name in GOOD.__dataclass_fields__}
    return {limit.name: limit for limit in judge_limits(Measured(**(values | fields)))}


def test_everything_is_well_just_inside_the_bounds():
    assert broken_limits(judge_limits(GOOD)) == ()
    assert all(limit.ok for limit in judge_limits(GOOD))


@pytest.mark.parametrize(
    ("fields", "names", "severity"),
    [
        ({"success_rate": 0.95}, {"success_rate"}, "info"),
        ({"mean_run_seconds": 30.0}, {"mean_run_time"}, "info"),
        ({"queue_lengths": {"a": 1, "b": 10}}, {"queue_length"}, "info"),
        ({"queue_lengths": {"a": 1000}}, {"queue_length"}, "info"),
        ({"queue_lengths": {"a": 1001}}, {"queue_length", "high_queue_length"}, "warning"),
        ({"worker_memory_mb": 512.0}, {"worker_memory"}, "info"),
        ({"beat_response": 5.0}, {"beat_response"}, "warning"),
        ({"beats": 0}, {"beat_response"}, "warning"),
        ({"workers": 0}, {"celery_worker_down"}, "critical"),
        ({"error_rate": 0.0501}, {"high_error_rate"}, "warning"),
        ({"longest_running_seconds": 600.1}, {"task_running_long"}, "warning"),
        ({"memory_share": 0.801}, {"memory_high"}, "warning"),
        ({"silence": 30.1}, {"worker_silent"}, "warning"),
        ({"missed": 1}, {"schedule_missed"}, "warning"),
        ({"dead_letters": 1}, {"dead_letters"}, "warning"),
        ({"ended": ("worker-00@a: hung",)}, {"processes_stuck"}, "warning"),
    ],
)
def test_each_limit_breaks_at_its_own_bound_and_alone(fields, names, severity):
    limits = changed(**fields)
    found = broken_limits(limits.values())
    assert {limit.name for limit in found} == names
    assert found[0].severity == severity


def test_the_longest_queue_is_named():
    limits = changed(queue_lengths={"default": 3, "metadata_queue": 2000})
    assert limits["high_queue_length"].value == 2000
    assert limits["high_queue_length"].note == "queue metadata_queue"


def test_what_was_not_measured_is_neither_kept_nor_broken():
    limits = judge_limits(Measured())
    assert {limit.ok for limit in limits} == {None}
    assert broken_limits(limits) == ()


def test_the_worst_comes_first():
    limits = changed(workers=0, beat_response=9.0, success_rate=0.1)
    severities = [limit.severity for limit in broken_limits(limits.values())]
    assert severities == ["critical", "warning", "info"]
