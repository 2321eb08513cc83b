"""``fab status``: every program on every host, beat, queues, and the limits that are broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.ops import output, suite, words
from scripts.ops.failures import OK, UNHEALTHY
from scripts.ops.inventory import Host
from scripts.ops.reach import Reach
from scripts.ops.snapshot import Program, Snapshot
from scripts.ops.suite import Answered
from scripts.ops.survey import Survey, survey
from scripts.ops.words import Cell, Table, Toned, duration, megabytes

# Which tone a broken limit takes.
_TONES: Mapping[str, words.Tone] = {"critical": "bad", "warning": "warning", "info": "warning"}
_HEALTH: Mapping[str, words.Tone] = {
    "healthy": "good",
    "degraded": "warning",
    "unhealthy": "bad",
}


def question(reached: Reach) -> Any:
    """What the suite is asked."""
    return suite.document(reached, ["status", "--schedules", "0"])


def show(hosts: Sequence[Host], *, as_json: bool) -> int:
    """Print the status of ``hosts`` and of the suite; the exit status says whether all is well."""
    seen = survey(hosts, question)
    wrong = complaints(seen)
    if as_json:
        output.document(fields(seen))
    else:
        output.lines(page(seen, colour=words.colours()))
    return UNHEALTHY if wrong else OK


def complaints(seen: Survey) -> list[str]:
    """Everything that makes the suite unhealthy, a sentence each."""
    found = [complaint for each in seen.snapshots for complaint in each.complaints]
    return found + (suite_complaints(seen.suite) if seen.suite else [])


def suite_complaints(answered: Answered) -> list[str]:
    """What is wrong with the suite as a whole."""
    if answered.error is not None:
        return [f"the suite does not tell its status: {answered.error.message}"]
    status = answered.value
    found = []
    if status["health"]["status"] == "unhealthy":
        found.append(f"the suite is unhealthy: {_not_ok(status['health'])}")
    found += [
        f"{limit['title']}: {figure(limit)}, normal is {limit['bound']}"
        for limit in status["limits"]
        if limit["ok"] is False and limit["severity"] == "critical"
    ]
    return found


def _not_ok(health: Mapping[str, Any]) -> str:
    checks = health["checks"].items()
    wrong = [f"{name}: {said}" for name, said in checks if not said.startswith("ok")]
    return "; ".join(wrong) or "it does not say why"


def fields(seen: Survey) -> dict[str, Any]:
    """The survey as JSON shows it."""
    wrong = complaints(seen)
    return {
        "status": "unhealthy" if wrong else "healthy",
        "problems": wrong,
        "hosts": [
            {
                "host": each.host,
                "groups": each.groups,
                "unreachable": each.unreachable or None,
                "release": each.release,
                "uptime_seconds": each.facts.get("uptime"),
                "load": each.facts.get("load"),
                "programs": each.programs,
                "waiting_for_restart": [program.name for program in each.waiting],
                "problems": each.complaints,
            }
            for each in seen.snapshots
        ],
        "suite": seen.suite.value if seen.suite else None,
        "suite_asked_on": (seen.suite.host or None) if seen.suite else None,
    }


def page(seen: Survey, *, colour: bool = False) -> list[str]:
    """The survey for people."""
    lines = programs(seen.snapshots).lines(colour=colour)
    if seen.suite and seen.suite.error is None:
        lines += ["", *suite_lines(seen.suite.value, colour=colour)]
    wrong = complaints(seen)
    hints = [f"  {each.host}: {each.hint}" for each in seen.snapshots if each.hint]
    if seen.suite and seen.suite.error is not None and seen.suite.error.hint:
        hints.append(f"  {seen.suite.error.hint}")
    lines.append("")
    if wrong:
        lines += [words.painted(Toned(each, "bad"), colour) for each in wrong]
        lines += hints
    else:
        lines.append(words.painted(_well(seen), colour))
    waiting = [f"{p.host}: {p.name}" for each in seen.snapshots for p in each.waiting]
    if waiting:
        told = f"run an older release until `fab restart`: {', '.join(waiting)}"
        lines.append(words.painted(Toned(told, "warning"), colour))
    return lines


def _well(seen: Survey) -> Toned:
    """The last line when nothing is wrong that would end `fab` with an error."""
    count = sum(len(each.programs) for each in seen.snapshots)
    all_run = f"{_count(len(seen.snapshots), 'host')}, {_count(count, 'program')}"
    health = seen.suite.value["health"] if seen.suite else None
    if health and health["status"] == "degraded":
        return Toned(f"{all_run}: all run; degraded: {_not_ok(health)}", "warning")
    broken = (
        [each for each in seen.suite.value["limits"] if each["ok"] is False] if seen.suite else []
    )
    if broken:
        told = "a limit is" if len(broken) == 1 else f"{len(broken)} limits are"
        return Toned(f"{all_run}: all run; {told} broken", "warning")
    return Toned(f"{all_run}: all is well", "good")


def programs(snapshots: Sequence[Snapshot], title: str = "") -> Table:
    """The table of programs, host by host."""
    rows: list[Sequence[Cell]] = []
    for each in snapshots:
        if each.unreachable:
            state = Toned("unreachable", "bad")
            rows.append((each.host, Toned("–", "dim"), state, None, None, None, None))
            continue
        if not each.programs:
            rows.append((each.host, None, None, None, None, None, each.release))
        for position, program in enumerate(each.programs):
            rows.append((each.host if position == 0 else " ", *_cells(program, each)))
    columns = ["host", "program", "state", ">pid", ">up for", ">memory", "release"]
    return Table(columns, rows, title)


def _cells(program: Program, host: Snapshot) -> tuple[Cell, ...]:
    tone: words.Tone = "bad" if program.problem else "good"
    if program.state == "starting":
        tone = "warning"
    outdated = program in host.waiting
    return (
        program.name,
        Toned(program.state, tone),
        program.pid or None,
        duration(program.seconds) if program.pid else None,
        megabytes(program.memory_mb),
        Toned(program.release or "", "warning") if outdated else program.release,
    )


def suite_lines(status: Mapping[str, Any], *, colour: bool = False) -> list[str]:
    """Health, beat, queues and broken limits, as the suite itself tells them."""
    health = status["health"]
    checks = ", ".join(f"{name} {said}" for name, said in health["checks"].items())
    lines = [
        f"suite    {words.painted(Toned(health['status'], _HEALTH[health['status']]), colour)}"
        f"   {checks}",
        f"beat     {beat_line(status)}",
        f"workers  {workers_line(status)}",
        f"runs     {outcomes_line(status)}",
    ]
    lines += [words.painted(Toned(each, "bad"), colour) for each in status["problems"]]
    lines += ["", *queues(status["queues"]).lines(colour=colour)]
    broken = [limit for limit in status["limits"] if limit["ok"] is False]
    if broken:
        lines += ["", *limits(broken, "limit broken").lines(colour=colour)]
    else:
        lines += ["", "limits   none is broken"]
    return lines


def beat_line(status: Mapping[str, Any]) -> str:
    """When beat last ticked, and where."""
    live = [beat for beat in status["beats"] if beat["alive"]]
    if not live:
        standing_in = [each for each in status["schedulers"] if each["alive"]]
        return "none; the workers' TaskScheduler fires" if standing_in else "none"
    return ", ".join(
        f"{beat['host']} ticked {duration(beat['tick_age_seconds'])} ago"
        if beat["tick_age_seconds"] is not None
        else f"{beat['host']} has not ticked yet"
        for beat in live
    )


def workers_line(status: Mapping[str, Any]) -> str:
    """How many workers hold a lease, and how many of them are at work."""
    live = [worker for worker in status["workers"] if worker["alive"]]
    busy = sum(bool(worker["running"]) for worker in live)
    lapsed = len(status["workers"]) - len(live)
    tail = f"; the lease of {lapsed} has lapsed" if lapsed else ""
    return f"{len(live)} hold a lease, {busy} of them at work{tail}"


def outcomes_line(status: Mapping[str, Any]) -> str:
    """How the runs of the last while ended."""
    found = status["outcomes"]
    if not found:
        return "–"
    states = ", ".join(f"{n} {state}" for state, n in sorted(found["by_state"].items()))
    return f"{states or 'none'} in the last {duration(found['window_seconds'])}"


def queues(found: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """The queues: what waits, how old the oldest is, what the ledger holds, who consumes."""
    rows: list[Sequence[Cell]] = []
    for queue in found:
        oldest = queue["oldest"] or {}
        live = ", ".join(f"{n} {state}" for state, n in sorted(queue["live"].items()))
        nobody = queue["consumers"] == 0
        rows.append(
            (
                queue["name"],
                queue["length"],
                duration(oldest.get("age_seconds")),
                oldest.get("task"),
                live,
                Toned("nobody", "bad" if queue["length"] else "warning")
                if nobody
                else queue["consumers"],
            )
        )
    columns = ["queue", ">waiting", ">oldest", "which is", "in the ledger", ">consumers"]
    return Table(columns, rows, title)


def limits(found: Sequence[Mapping[str, Any]], first: str = "figure", title: str = "") -> Table:
    """Limits with their measured figures."""
    rows: list[Sequence[Cell]] = []
    for limit in found:
        judged = (
            Toned("–", "dim")
            if limit["ok"] is None
            else Toned("ok", "good")
            if limit["ok"]
            else Toned(limit["severity"], _TONES[limit["severity"]])
        )
        bound = f"{limit['bound']} {limit['unit']}".rstrip()
        rows.append((limit["title"], figure(limit), bound, judged, limit["note"]))
    return Table([first, ">measured", ">normal", "", "where"], rows, title)


def figure(limit: Mapping[str, Any]) -> str:
    """A limit's measured value with its unit."""
    value, unit = limit["value"], limit["unit"]
    if value is None:
        return "–"
    if unit == "s":
        return duration(value)
    text = f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"
    return f"{text} {unit}".rstrip()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
