"""What `status`, `report` and `monitor` show, part by part: figures in, tables out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from ironbeat.cli.output import clock, duration, moment, narrow, table

if TYPE_CHECKING:
    from rich.table import Table

    from ironbeat.watch import (
        Between,
        Failure,
        Health,
        Limit,
        Process,
        QueueStatus,
        Report,
        Running,
        Schedule,
        Status,
        Waiting,
        Worker,
    )

HEALTH_STYLES = {"healthy": "bold green", "degraded": "bold yellow", "unhealthy": "bold red"}
BROKEN = {"critical": "CRITICAL", "warning": "warning", "info": "not normal"}
SEVERITY_STYLES = {"critical": "bold red", "warning": "red", "info": "yellow"}
STATE_STYLES = {
    "succeeded": "green",
    "running": "cyan",
    "failed": "red",
    "dead": "bold red",
    "expired": "yellow",
    "cancelled": "yellow",
    "retrying": "yellow",
    "skipped": "dim",
}


def state_text(state: str | None) -> Text:
    """A run's state in its colour."""
    return Text(state or "–", style=STATE_STYLES.get(state or "", ""))


def first_line(text: str | None) -> str:
    """The first line of an error."""
    return text.strip().splitlines()[0] if text and text.strip() else ""


def headline(health: Health) -> RenderableType:
    """The health in one line, and what is wrong below it."""
    line = Text(health.status, style=HEALTH_STYLES[health.status])
    for name, found in health.checks.items():
        line.append(f"   {name} ", style="default")
        line.append(found, style="green" if found.startswith("ok") else "yellow")
    return line


def limits(found: Sequence[Limit]) -> RenderableType:
    """Every limit with its measured figure."""
    rows = []
    for limit in found:
        judged = (
            Text("–", style="dim")
            if limit.ok is None
            else Text("ok", style="green")
            if limit.ok
            else Text(BROKEN[limit.severity], style=SEVERITY_STYLES[limit.severity])
        )
        bound = f"{limit.bound} {limit.unit}".rstrip()
        rows.append((limit.title, figure(limit.value, limit.unit), bound, judged, limit.note))
    return table("Limits", ["!figure", ">!measured", ">!normal", "!", "where"], rows)


def figure(value: float | None, unit: str) -> str:
    """A measured value with its unit."""
    if value is None:
        return "–"
    if unit == "s":
        return duration(value)
    text = f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"
    return f"{text} {unit}".strip()


def workers(status: Status) -> RenderableType:
    """The processes: what each does, and how much memory and CPU it takes."""
    found = [*status.workers, *status.rq_workers, *status.beats]
    found += [*status.schedulers, *status.processes]
    if not found:
        return Text("Processes: none has a lease", style="bold red")
    return processes(found, "Processes")


def processes(found: Sequence[Process], title: str | None = None) -> Table:
    """Processes of every kind, one a line."""
    columns = ["!process", ">!pid", "!lease", "queues", ">!memory", ">!CPU", ">consumed", "doing"]
    return table(title, columns, [_process(process) for process in found])


def _process(process: Process) -> Sequence[Any]:
    from ironbeat.watch import Beat, Worker

    queues = consumed = doing = None
    name = f"{process.kind} {process.name}"
    if isinstance(process, Worker):
        name, consumed, doing = process.name, process.consumed, _doing(process)
        queues = ", ".join(process.queues) or "all"
    elif isinstance(process, Beat) and process.tick_age_seconds is not None:
        doing = f"ticked {duration(process.tick_age_seconds)} ago, fired {process.fired or 0}"
    memory, cpu = _megabytes(process.rss_mb), _percent(process.cpu_pct)
    return (name, process.pid, _alive(process.alive), queues, memory, cpu, consumed, doing)


def _doing(worker: Worker) -> str:
    if not worker.running:
        return "idle"
    return ", ".join(f"{run.task} for {duration(run.seconds)}" for run in worker.running)


def _alive(alive: bool) -> Text:
    return Text("held", style="green") if alive else Text("lapsed", style="red")


def _megabytes(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f} MB"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f} %"


def queues(found: Sequence[QueueStatus]) -> RenderableType:
    """The queues: what waits in the broker, how old the oldest is, what the ledger holds."""
    rows = []
    for queue in found:
        steps = queue.by_priority or {}
        by_priority = ", ".join(f"{step}: {n}" for step, n in steps.items() if n and step)
        rows.append(
            (
                queue.name,
                queue.length,
                by_priority,
                duration(queue.oldest_age_seconds),
                queue.oldest.task if queue.oldest else None,
                ", ".join(f"{n} {state}" for state, n in sorted(queue.live.items())),
                queue.consumers,
            )
        )
    columns = [
        "!queue",
        ">!waiting",
        "by priority",
        ">oldest",
        "which is",
        "in the ledger",
        ">consumers",
    ]
    return table("Queues", columns, rows)


# A bar this long is the longest queue's.
BAR_WIDTH = 30


def queue_bars(
    found: Sequence[QueueStatus], title: str | None = "Queues", longest: int | None = None
) -> Table:
    """The queues as bars, each as long as its share of the longest one, or of ``longest``."""
    if longest is None:
        longest = max((queue.length or 0 for queue in found), default=0)
    rows = []
    for queue in found:
        length = queue.length or 0
        # What waits at all shows, however long another queue is.
        cells = max(1, round(BAR_WIDTH * length / longest)) if length else 0
        tone = "red" if length and not queue.consumers else "yellow" if length >= 10 else "green"
        rows.append(
            (
                queue.name,
                Text("█" * cells, style=tone),
                queue.length,
                duration(queue.oldest_age_seconds) if length else "–",
                queue.live.get("running", 0),
                queue.consumers,
            )
        )
    columns = ["!queue", "", ">!waiting", ">!oldest", ">!running", ">!consumers"]
    return table(title, columns, rows)


def stores(status: Status) -> RenderableType:
    """PostgreSQL, the broker, and what the ledger still owes."""
    lines = []
    if status.database:
        found = status.database
        lines.append(
            f"PostgreSQL {found.version}: {found.size_mb:,.0f} MB, "
            f"{found.connections} of {found.max_connections} connections"
        )
    if status.broker:
        broker = status.broker
        ceiling = f" of {broker.max_memory_mb:,.0f}" if broker.max_memory_mb else ""
        kept = "append-only file on" if broker.append_only else "append-only file OFF"
        lines.append(
            f"Redis {broker.version}: {broker.used_memory_mb:,.1f}{ceiling} MB, "
            f"{broker.policy}, {kept}, {broker.unacked} unacknowledged"
        )
    if status.backlog:
        backlog = status.backlog
        aged = f", oldest {duration(backlog.outbox_age_seconds)}" if backlog.outbox_due else ""
        lines.append(
            f"Outbox: {backlog.outbox_due} to publish{aged}; {backlog.outbox_later} later; "
            f"{backlog.outbox_held} held back"
        )
    return Text("\n".join(lines))


def outcomes(status: Status) -> RenderableType:
    """How the runs of the last while went."""
    found = status.outcomes
    if found is None:
        return Text("")
    states = ", ".join(f"{n} {state}" for state, n in sorted(found.by_state.items())) or "none"
    line = f"Runs ended in the last {duration(found.window_seconds)}: {states}"
    if found.run.count:
        line += (
            f"; took {duration(found.run.mean)} on average, {duration(found.run.p99)} p99; "
            f"waited {duration(found.wait.mean)}, {duration(found.wait.p99)} p99"
        )
    return Text(line)


def schedules(status: Status) -> RenderableType:
    """The schedules: last run, how it went, how long it took, next run."""
    found = status.schedules
    total = status.punctuality.schedules if status.punctuality else len(found)
    title = f"Schedules ({len(found)} of {total})" if total > len(found) else "Schedules"
    return schedule_table(found, status.at, title)


def schedule_table(found: Sequence[Schedule], now: datetime, title: str | None = None) -> Table:
    """Schedules, one a line."""
    rows = [
        (
            schedule.name,
            schedule.expression,
            _next(schedule, now),
            clock(schedule.last_started_at or schedule.last_scheduled_for),
            state_text(schedule.last_state),
            duration(schedule.last_seconds),
            first_line(schedule.last_error),
        )
        for schedule in found
    ]
    return table(title, ["schedule", "when", "!next", "!last", "!", ">!took", "error"], rows)


def _next(schedule: Schedule, now: datetime) -> Text:
    if not schedule.enabled:
        return Text("paused", style="yellow")
    if schedule.next_at is None:
        return Text("–")
    if schedule.overdue_seconds > 0:
        return Text(f"due for {duration(schedule.overdue_seconds)}", style="yellow")
    return Text(f"in {duration((schedule.next_at - now).total_seconds())}")


def running(found: Sequence[Running]) -> RenderableType:
    """The runs that are being executed."""
    rows = [
        (
            run.id[:8] if narrow() else run.id,
            run.task,
            run.schedule,
            run.worker,
            duration(run.seconds),
            run.attempt,
            "cancelling" if run.cancelling else progress(run.progress),
        )
        for run in found
    ]
    columns = ["!running", "task", "schedule", "worker", ">!for", ">!try", "progress"]
    return table("Running", columns, rows)


def progress(value: Any) -> str | None:
    """What a task reported of itself, in a line."""
    if value is None:
        return None
    if isinstance(value, Mapping) and "progress" in value:
        step = value.get("current_step") or value.get("stage") or ""
        return f"{value['progress']} % {step}".strip()
    return json.dumps(value, ensure_ascii=False, default=str)


def failures(found: Sequence[Failure], title: str = "Failed in the last day") -> RenderableType:
    """The runs that ended badly, and why."""
    rows = [
        (
            clock(failure.ended_at),
            failure.id[:8] if narrow() else failure.id,
            state_text(failure.state),
            failure.task,
            failure.schedule,
            failure.attempt,
            first_line(failure.error),
        )
        for failure in found
    ]
    return table(title, ["!ended", "!id", "!", "task", "schedule", ">!try", "why"], rows)


def problems(status: Status) -> list[RenderableType]:
    """What could not be read, and why."""
    return [Text(problem, style="bold red") for problem in status.problems]


def switched_off(status: Status) -> list[RenderableType]:
    """The workloads that do not run, and why."""
    return [Text(f"workload {name} is off: {reason}") for name, reason in status.off.items()]


def status_page(status: Status) -> RenderableType:
    """The page that ``ironbeat status`` prints."""
    parts: list[RenderableType] = [headline(status.health), *problems(status)]
    parts += [*switched_off(status), ""]
    parts += [limits(status.limits), "", workers(status), "", queues(status.queues), ""]
    parts += [stores(status), outcomes(status), "", schedules(status)]
    if status.running:
        parts += ["", running(status.running)]
    if status.failures:
        parts += ["", failures(status.failures)]
    return Group(*parts)


def report_page(report: Report) -> RenderableType:
    """The page that ``ironbeat report`` prints."""
    parts: list[RenderableType] = [status_page(report.status)]
    waiting = [(name, message) for name, found in report.waiting.items() for message in found]
    if waiting:
        parts += ["", _waiting(waiting)]
    if report.between is not None:
        parts += ["", *_between(report.between)]
    modules = [
        (
            module.workload,
            module.name,
            Text("imports", style="green") if module.error is None else Text("", style="red"),
            module.error,
        )
        for module in report.modules
    ]
    parts += ["", table("Task modules", ["workload", "module", "", "error"], modules, fold=True)]
    return Group(*parts)


def _waiting(found: Sequence[tuple[str, Waiting]]) -> RenderableType:
    rows = [
        (
            queue,
            message.id,
            message.task,
            message.priority,
            duration(message.age_seconds),
            message.schedule,
        )
        for queue, message in found
    ]
    columns = ["queue", "id", "task", ">priority", ">age", "schedule"]
    return table("Next in line", columns, rows)


def _between(found: Between) -> list[RenderableType]:
    rows = [
        (
            group.task,
            group.schedule,
            state_text(group.state),
            group.runs,
            duration(group.mean_seconds),
            duration(group.max_seconds),
            moment(group.first),
            moment(group.last),
        )
        for group in found.groups
    ]
    period = f"{moment(found.since)} to {moment(found.until)}"
    parts: list[RenderableType] = [
        table(
            f"From {period}: {found.runs} runs, {found.fires} fires ({found.late_fires} late), "
            f"{found.still_running} still running",
            ["task", "schedule", "", ">runs", ">mean", ">longest", "first", "last"],
            rows,
        )
    ]
    if found.failures:
        parts += ["", failures(found.failures, f"Failed from {period}")]
    if found.edits:
        edits = [
            (moment(edit.edited_at), edit.name, "on" if edit.enabled else "paused")
            for edit in found.edits
        ]
        parts += ["", table("Schedules edited", ["at", "schedule", "now"], edits)]
    return parts
