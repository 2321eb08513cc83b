"""The owners' normal values and alert rules, judged against measured figures. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Severity = Literal["critical", "warning", "info"]
Unit = Literal["%", "s", "", "MB"]

SUCCESS_RATE_NORMAL_PERCENT = 95.0
RUN_TIME_NORMAL_SECONDS = 30.0
QUEUE_LENGTH_NORMAL = 10
WORKER_MEMORY_NORMAL_MB = 512.0
BEAT_RESPONSE_NORMAL_SECONDS = 5.0

QUEUE_LENGTH_ALERT = 1000
ERROR_RATE_ALERT_PERCENT = 5.0
RUNNING_ALERT_SECONDS = 600.0
MEMORY_ALERT_PERCENT = 80.0
# How late a fire may be before its schedule counts as having missed its time.
MISSED_AFTER_SECONDS = 60.0
# A worker renews its lease every few seconds; one silent for longer than it is looked at is unwell.
WORKER_LOOK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures to judge; ``None`` where there is none: nothing ran, or it could not be read.

    Rates are fractions (0…1), times seconds, memory megabytes. ``queue_lengths`` maps each queue to
    the messages waiting in it. ``beat_response`` is how long something due waits for beat;
    ``beats`` and ``workers`` count the live ones.
    ``memory_share`` is the largest fraction of its ceiling that a worker uses. ``silence`` is the
    longest time since a live worker was heard of. ``dead_letters`` nobody has dealt with; ``ended``
    are the processes that a watchdog had to end in the last hour.
    """

    success_rate: float | None = None
    error_rate: float | None = None
    mean_run_seconds: float | None = None
    queue_lengths: dict[str, int] | None = None
    worker_memory_mb: float | None = None
    beat_response: float | None = None
    beats: int | None = None
    workers: int | None = None
    longest_running_seconds: float | None = None
    memory_share: float | None = None
    silence: float | None = None
    missed: int | None = None
    dead_letters: int | None = None
    ended: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """One normal value or alert rule with its measured figure.

    ``bound`` is the limit as the owners wrote it (``"< 30"``) and ``threshold`` its number.
    ``ok`` is ``None`` when nothing was measured. ``severity`` is what breaking it means; ``note``
    says where (which queue is longest).
    """

    name: str
    title: str
    value: float | None
    bound: str
    threshold: float
    unit: Unit
    ok: bool | None
    severity: Severity
    note: str = ""


def judge_limits(measured: Measured) -> tuple[Limit, ...]:
    """Every limit with its figure, in the owners' order: normal values, then alert rules."""
    success = _percent(measured.success_rate)
    errors = _percent(measured.error_rate)
    longest: float | None = None
    where = ""
    if measured.queue_lengths is not None:
        longest = float(max(measured.queue_lengths.values(), default=0))
        where = next(
            (f"queue {name}" for name, n in measured.queue_lengths.items() if n == longest > 0), ""
        )
    return (
        _above("success_rate", "success rate", success, SUCCESS_RATE_NORMAL_PERCENT, "%", "info"),
        _below(
            "mean_run_time",
            "mean run time",
            measured.mean_run_seconds,
            RUN_TIME_NORMAL_SECONDS,
            "s",
            "info",
        ),
        _below(
            "queue_length", "longest queue", longest, QUEUE_LENGTH_NORMAL, "", "info", note=where
        ),
        _below(
            "worker_memory",
            "largest worker memory",
            measured.worker_memory_mb,
            WORKER_MEMORY_NORMAL_MB,
            "MB",
            "info",
        ),
        _beat(measured),
        _above(
            "celery_worker_down",
            "active workers",
            None if measured.workers is None else float(measured.workers),
            0,
            "",
            "critical",
        ),
        _below(
            "high_queue_length",
            "longest queue",
            longest,
            QUEUE_LENGTH_ALERT,
            "",
            "warning",
            note=where,
            inclusive=True,
        ),
        _below(
            "high_error_rate",
            "error rate",
            errors,
            ERROR_RATE_ALERT_PERCENT,
            "%",
            "warning",
            inclusive=True,
        ),
        _below(
            "task_running_long",
            "longest running task",
            measured.longest_running_seconds,
            RUNNING_ALERT_SECONDS,
            "s",
            "warning",
            inclusive=True,
        ),
        _below(
            "memory_high",
            "worker memory of its ceiling",
            _percent(measured.memory_share),
            MEMORY_ALERT_PERCENT,
            "%",
            "warning",
            inclusive=True,
        ),
        _below(
            "worker_silent",
            "longest silence of a worker",
            measured.silence,
            WORKER_LOOK_SECONDS,
            "s",
            "warning",
            inclusive=True,
        ),
        _below(
            "schedule_missed",
            "schedules that missed their time",
            None if measured.missed is None else float(measured.missed),
            1,
            "",
            "warning",
        ),
        _below(
            "dead_letters",
            "dead letters (ironbeat dead list)",
            None if measured.dead_letters is None else float(measured.dead_letters),
            1,
            "",
            "warning",
        ),
        _below(
            "processes_stuck",
            "processes that a watchdog ended within the hour",
            None if measured.ended is None else float(len(measured.ended)),
            1,
            "",
            "warning",
            note=", ".join(measured.ended or ()),
        ),
    )


def broken_limits(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """The limits that are broken, worst first."""
    order: dict[Severity, int] = {"critical": 0, "warning": 1, "info": 2}
    return tuple(sorted((x for x in limits if x.ok is False), key=lambda x: order[x.severity]))


def _beat(measured: Measured) -> Limit:
    limit = _below(
        "beat_response",
        "beat response",
        measured.beat_response,
        BEAT_RESPONSE_NORMAL_SECONDS,
        "s",
        "warning",
    )
    # Without a beat nothing is due yet, and still nothing will be answered.
    return (
        replace(limit, value=None, ok=False, note="no active beat")
        if measured.beats == 0
        else limit
    )


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else fraction * 100


def _below(
    name: str,
    title: str,
    value: float | None,
    threshold: float,
    unit: Unit,
    severity: Severity,
    *,
    note: str = "",
    inclusive: bool = False,
) -> Limit:
    # An alert "> 1000" is quiet at 1000; a normal value "< 10" is not normal at 10.
    ok = None if value is None else value <= threshold if inclusive else value < threshold
    bound = f"{'≤' if inclusive else '<'} {threshold:g}"
    return Limit(name, title, value, bound, float(threshold), unit, ok, severity, note)


def _above(
    name: str, title: str, value: float | None, threshold: float, unit: Unit, severity: Severity
) -> Limit:
    ok = None if value is None else value > threshold
    return Limit(name, title, value, f"> {threshold:g}", float(threshold), unit, ok, severity)
