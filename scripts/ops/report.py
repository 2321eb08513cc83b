"""``fab report``: the suite's own report with all its hosts, on the terminal or as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from scripts.ops import output, plots, status, suite, webpage, words
from scripts.ops.failures import OK, REFUSED, UNHEALTHY, OpsError
from scripts.ops.inventory import Host
from scripts.ops.reach import Reach
from scripts.ops.survey import Survey, survey
from scripts.ops.words import Cell, Table, Toned, duration, megabytes, moment
from scripts.ops.zone import zone_of

# The suite itself takes at most 5 s for the status and as much again for the period.
REPORT_SECONDS = 20.0
SCHEDULES_SHOWN = 200

_STATES: Mapping[str, words.Tone] = {
    "succeeded": "good",
    "failed": "bad",
    "dead": "bad",
    "expired": "warning",
    "cancelled": "warning",
    "skipped": "dim",
}


def show(hosts: Sequence[Host], *, since: str, until: str, html: str, as_json: bool) -> int:
    """Print the report, or write it to the page ``html``; the exit status is that of the suite."""
    if not any(suite.can_answer(host) for host in hosts):
        raise suite.nobody()
    period = [*(["--since", since] if since else []), *(["--until", until] if until else [])]

    def question(reached: Reach) -> Any:
        return suite.document(reached, ["report", *period], REPORT_SECONDS)

    seen = survey(hosts, question, deadline=REPORT_SECONDS)
    assert seen.suite is not None
    if seen.suite.error is not None and not seen.suite.host:
        raise seen.suite.error
    told = seen.suite.value
    both = Survey(seen.snapshots, suite.Answered(told["status"], seen.suite.host))
    wrong = status.complaints(both)
    if html:
        _write(Path(html), both, told)
        if not as_json:
            print(f"the report is in {html}")
    if as_json:
        output.document({**status.fields(both), "report": told})
    elif not html:
        output.lines(page(both, told, colour=words.colours()))
    return UNHEALTHY if wrong else OK


def page(seen: Survey, told: Mapping[str, Any], *, colour: bool = False) -> list[str]:
    """The report for a terminal."""
    zone = _zone(seen)
    lines = [words.painted(Toned(each, "title"), colour) for each in heading(told, zone)]
    lines += [words.painted(Toned(each, "bad"), colour) for each in status.complaints(seen)]
    for table in tables(seen, told, zone):
        lines += ["", *table.lines(colour=colour)]
    return lines


def heading(told: Mapping[str, Any], zone: tzinfo) -> list[str]:
    """What it is a report of, and the suite's health in a line."""
    now = told["status"]
    checks = ", ".join(f"{name} {said}" for name, said in now["health"]["checks"].items())
    return [
        f"Ironbeat {now['version']}, {moment(now['at'], zone)} ({zone})",
        f"{now['health']['status']}: {checks}",
        f"beat: {status.beat_line(now)}; workers: {status.workers_line(now)}",
        f"runs: {status.outcomes_line(now)}",
    ]


def tables(seen: Survey, told: Mapping[str, Any], zone: tzinfo) -> list[Table]:
    """All tables of the report; one that would be empty is left out."""
    now, between = told["status"], told["between"]
    found = [
        status.limits(now["limits"], "figure", "Normal values and alert rules"),
        status.programs(seen.snapshots, "Programs"),
        workers(now["workers"]),
        status.queues(now["queues"], "Queues"),
        waiting(told["waiting"]),
    ]
    if between is not None:
        period = f"{moment(between['since'], zone)} to {moment(between['until'], zone)}"
        found += [
            groups(between, period, zone),
            failures(between["failures"], f"Failed from {period}", zone),
            edits(between["edits"], zone),
        ]
    found += [
        running(now["running"]),
        schedules(now["schedules"], now["at"], zone),
        modules(told["modules"]),
    ]
    return [table for table in found if table.rows]


def workers(found: Sequence[Mapping[str, Any]]) -> Table:
    """The workers: lease, memory, processor, what each does."""
    rows: list[Sequence[Cell]] = []
    for worker in found:
        doing = ", ".join(
            f"{each['task']} for {duration(each['seconds'])}" for each in worker["running"]
        )
        rows.append(
            (
                worker["name"],
                worker["pid"],
                Toned("held", "good") if worker["alive"] else Toned("lapsed", "bad"),
                ", ".join(worker["queues"]) or "all",
                megabytes(worker["rss_mb"]),
                None if worker["cpu_pct"] is None else f"{worker['cpu_pct']:.0f} %",
                worker["consumed"],
                doing or "idle",
            )
        )
    columns = ["worker", ">pid", "lease", "queues", ">memory", ">CPU", ">consumed", "doing"]
    return Table(columns, rows, "Workers")


def waiting(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """The next messages of each queue."""
    rows: list[Sequence[Cell]] = [
        (
            queue,
            each["id"],
            each["task"],
            each["priority"],
            duration(each["age_seconds"]),
            each["schedule"],
        )
        for queue, messages in found.items()
        for each in messages
    ]
    columns = ["queue", "id", "task", ">priority", ">age", "schedule"]
    return Table(columns, rows, "Next in line")


def groups(between: Mapping[str, Any], period: str, zone: tzinfo) -> Table:
    """What ran in the period, by task, schedule and outcome."""
    rows: list[Sequence[Cell]] = [
        (
            each["task"],
            each["schedule"],
            _state(each["state"]),
            each["runs"],
            duration(each["mean_seconds"]),
            duration(each["max_seconds"]),
            moment(each["first"], zone),
            moment(each["last"], zone),
        )
        for each in between["groups"]
    ]
    title = (
        f"Runs from {period}: {between['runs']}, {between['fires']} fires "
        f"({between['late_fires']} late), {between['still_running']} still running"
    )
    columns = ["task", "schedule", "", ">runs", ">mean", ">longest", "first", "last"]
    return Table(columns, rows, title)


def failures(found: Sequence[Mapping[str, Any]], title: str, zone: tzinfo) -> Table:
    """Runs that ended badly, and why."""
    rows: list[Sequence[Cell]] = [
        (
            moment(each["ended_at"], zone),
            each["id"],
            _state(each["state"]),
            each["task"],
            each["schedule"],
            each["worker"],
            each["attempt"],
            _first_line(each["error"]),
        )
        for each in found
    ]
    columns = ["ended", "id", "", "task", "schedule", "worker", ">attempt", "why"]
    return Table(columns, rows, title)


def edits(found: Sequence[Mapping[str, Any]], zone: tzinfo) -> Table:
    """Schedules that were edited in the period."""
    rows: list[Sequence[Cell]] = [
        (moment(each["edited_at"], zone), each["name"], "on" if each["enabled"] else "paused")
        for each in found
    ]
    return Table(["at", "schedule", "now"], rows, "Schedules edited")


def running(found: Sequence[Mapping[str, Any]]) -> Table:
    """What is being executed."""
    rows: list[Sequence[Cell]] = [
        (
            each["id"],
            each["task"],
            each["schedule"],
            each["worker"],
            duration(each["seconds"]),
            each["attempt"],
        )
        for each in found
    ]
    columns = ["id", "task", "schedule", "worker", ">for", ">attempt"]
    return Table(columns, rows, "Running")


def schedules(found: Sequence[Mapping[str, Any]], at: str, zone: tzinfo) -> Table:
    """The schedules, those that fire next first."""
    now = datetime.fromisoformat(at)
    order = sorted(found, key=lambda each: (not each["enabled"], each["next_at"] or "~"))
    rows: list[Sequence[Cell]] = [
        (
            each["name"],
            each["expression"],
            _next(each, now),
            moment(each["next_at"], zone) if each["enabled"] else None,
            moment(each["last_started_at"] or each["last_scheduled_for"], zone),
            _state(each["last_state"]),
            duration(each["last_seconds"]),
            _first_line(each["last_error"]),
        )
        for each in order
    ]
    columns = ["schedule", "when", "next", "at", "last run", "", ">took", "error"]
    return Table(columns, rows, "Next scheduled runs")


def modules(found: Sequence[Mapping[str, Any]]) -> Table:
    """Whether the task modules import."""
    rows: list[Sequence[Cell]] = [
        (
            each["workload"],
            each["name"],
            Toned("imports", "good") if each["error"] is None else Toned("does not import", "bad"),
            each["error"],
        )
        for each in found
    ]
    return Table(["workload", "module", "", "error"], rows, "Task modules")


def _write(path: Path, seen: Survey, told: Mapping[str, Any]) -> None:
    zone = _zone(seen)
    between = told["between"]
    until = datetime.fromisoformat(between["until"]) if between else datetime.now(UTC)
    # A release from before the course was told has none.
    drawn = plots.of_course(told.get("course", ()), until)
    wrong = status.complaints(seen)
    text = webpage.page(heading(told, zone), wrong, drawn, tables(seen, told, zone), zone)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OpsError(f"{path} cannot be written: {error.strerror}", "", REFUSED) from error


def _zone(seen: Survey) -> tzinfo:
    zones = (zone_of(each.facts) for each in seen.snapshots if each.facts.get("settings"))
    return next(zones, UTC)


def _next(schedule: Mapping[str, Any], now: datetime) -> Cell:
    if not schedule["enabled"]:
        return Toned("paused", "warning")
    if schedule["overdue_seconds"] > 0:
        return Toned(f"due for {duration(schedule['overdue_seconds'])}", "warning")
    if schedule["next_at"] is None:
        return None
    return f"in {duration((datetime.fromisoformat(schedule['next_at']) - now).total_seconds())}"


def _state(state: str | None) -> Cell:
    return Toned(state, _STATES.get(state, "")) if state else None


def _first_line(text: str | None) -> str | None:
    return text.strip().splitlines()[0] if text and text.strip() else None
