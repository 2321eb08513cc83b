"""``fab restart``: one process after another, each drained, started and checked before the next.

A process is told to end (TERM) and supervisord starts it again when it has, so a laptop that is
closed in the middle leaves no worker behind that is stopped: it drains, ends and comes back by
itself. A worker takes no more tasks on TERM and finishes those it has. One that is still there when
supervisord's own patience (``stopwaitsecs``, above the drain deadline) would be over is killed, and
its tasks are taken over.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.ops import everywhere, output, roll, suite, words
from scripts.ops.failures import OK, REFUSED, UNHEALTHY, USAGE, OpsError
from scripts.ops.inventory import Host
from scripts.ops.looking import facts
from scripts.ops.processes import RUNS, Bounds, Process
from scripts.ops.reach import Reach, reach
from scripts.ops.roll import Candidate, Step, Wave
from scripts.ops.supervisord import Supervisor
from scripts.ops.words import Cell, Table, duration

PREPARE_SECONDS = 20.0
# From the end of the old process until the new one runs and does its work.
CONFIRM_SECONDS = 60.0
POLL_SECONDS = 0.5
# A process that supervisord has started so often in vain is not waited for any longer.
MOST_STARTS = 4
# Of a process whose file is gone nobody knows how long it may drain: it is not killed.
UNKNOWN_BOUNDS = Bounds(stop_seconds=86400, start_seconds=1)
# How many ended runs are looked at for how long tasks take.
RUNS_LOOKED_AT = 500


@dataclass(frozen=True)
class Done:
    """One process that was restarted. ``drained``: seconds until the old one had ended."""

    host: str
    name: str
    ok: bool
    said: str
    pid: int = 0
    drained_seconds: float = 0.0
    seconds: float = 0.0
    killed: bool = False


@dataclass
class Rolled:
    """How far a restart came."""

    done: list[Done]
    left: list[str]
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything was restarted and works."""
        return not self.left and all(each.ok for each in self.done)


@dataclass
class _Site:
    """A host that is being worked on."""

    reached: Reach
    supervisor: Supervisor
    hostname: str


def run(
    hosts: Sequence[Host],
    *,
    programs: Sequence[str],
    serial: int,
    dry_run: bool,
    env: str,
    as_json: bool,
) -> int:
    """Restart ``programs`` on ``hosts``; the exit status says whether all came back healthy.

    ``env`` is what the hosts were read from, for the hint on what to look at.
    """
    if serial < 1:
        raise OpsError(f"--serial {serial} is no number of hosts", "It must be 1 or more.", USAGE)
    sites, candidates = prepare([host for host in hosts if host.programs])
    waves = roll.plan(roll.chosen(candidates, programs), serial)
    if dry_run:
        if as_json:
            output.document({"dry_run": True, "waves": waves})
        else:
            output.lines(plan_lines(waves))
        return OK
    rolled = _Rolling(sites, tell=None if as_json else _print).through(waves)
    if as_json:
        outcome = "done" if rolled.ok else "interrupted" if rolled.interrupted else "aborted"
        output.document({"outcome": outcome, "restarted": rolled.done, "left": rolled.left})
    else:
        output.lines(outcome_lines(rolled, env))
    return OK if rolled.ok else UNHEALTHY


def prepare(hosts: Sequence[Host]) -> tuple[dict[str, _Site], list[Candidate]]:
    """Reach every host and read what runs there. Nothing begins when one cannot be reached."""
    if not hosts:
        raise OpsError("none of these hosts runs a program of the suite", "", REFUSED)
    readings: dict[str, Any] = {}

    def read(host: Host) -> _Site:
        reached = reach(host)
        reached.open()
        supervisor = Supervisor(reached)
        changed = supervisor.changed_groups()
        readings[host.name] = supervisor.processes(), supervisor.bounds(), changed
        return _Site(reached, supervisor, facts(reached)["hostname"])

    answers = everywhere.ask(hosts, read, PREPARE_SECONDS)
    failed = [
        f"{name}: {each.message}" for name, each in answers.items() if isinstance(each, OpsError)
    ]
    if failed:
        raise OpsError(
            f"nothing was restarted: {'; '.join(failed)}",
            "Repair it first, or leave it out with --limit '!HOST'.",
            REFUSED,
        )
    sites = {name: each for name, each in answers.items() if isinstance(each, _Site)}
    lengths = _task_seconds(sites)
    candidates = []
    for host in hosts:
        processes, bounds, changed = readings[host.name]
        for process in processes:
            task_seconds = lengths.get((sites[host.name].hostname, process.pid), 0.0)
            candidates.append(candidate(host.name, process, bounds, changed, task_seconds))
    return sites, candidates


def candidate(
    host: str,
    process: Process,
    bounds: Mapping[str, Bounds],
    changed: Collection[str],
    task_seconds: float = 0.0,
) -> Candidate:
    """A process with what supervisord says of its file; it need not be in the file any more."""
    bound = bounds.get(process.full_name, UNKNOWN_BOUNDS)
    return Candidate(
        host=host,
        process=process,
        stop_seconds=bound.stop_seconds,
        start_seconds=bound.start_seconds,
        changed=process.group in changed,
        task_seconds=task_seconds,
    )


def _task_seconds(sites: dict[str, _Site]) -> dict[tuple[str, int], float]:
    """How long the tasks of each worker typically take, by its host's own name and pid.

    Only the order depends on it: where the suite cannot say, all count as equal.
    """
    for site in sites.values():
        try:
            ended = ["runs", "--state", "ended", "--limit", str(RUNS_LOOKED_AT)]
            typical = roll.typical_seconds(suite.document(site.reached, ended))
            workers = suite.document(site.reached, ["status", "--schedules", "0"])["workers"]
        except OpsError:
            continue
        return {
            (worker["host"], worker["pid"]): max(
                (typical.get(queue, 0.0) for queue in worker["queues"]), default=0.0
            )
            for worker in workers
            if worker["alive"]
        }
    return {}


class _Rolling:
    """Works through the waves."""

    def __init__(self, sites: dict[str, _Site], tell: Callable[[str], None] | None) -> None:
        self._sites = sites
        self._tell = tell or (lambda _: None)
        self._abort = threading.Event()
        self._lock = threading.Lock()
        self._rolled = Rolled([], [])
        self._defects: list[BaseException] = []

    def through(self, waves: Sequence[Wave]) -> Rolled:
        """Restart everything, or stop after the first that does not come back healthy."""
        for wave in waves:
            threads = [
                threading.Thread(target=self._host, args=(host, steps), daemon=True)
                for host, steps in wave.steps.items()
            ]
            for thread in threads:
                thread.start()
            self._wait(threads)
            if self._defects:
                raise self._defects[0]
        done = {(each.host, each.name) for each in self._rolled.done}
        self._rolled.left = [
            f"{host}: {name}"
            for wave in waves
            for host, steps in wave.steps.items()
            for step in steps
            for name in step.names
            if (host, name) not in done
        ]
        return self._rolled

    def _wait(self, threads: list[threading.Thread]) -> None:
        """Wait for the threads; the first Ctrl-C lets what is under way be finished."""
        while any(thread.is_alive() for thread in threads):
            try:
                for thread in threads:
                    thread.join(0.2)
            except KeyboardInterrupt:
                if self._rolled.interrupted:
                    raise
                self._rolled.interrupted = True
                self._abort.set()
                print(
                    "fab: stops when the process under way is back; again to leave it to itself",
                    file=sys.stderr,
                )

    def _host(self, host: str, steps: Sequence[Step]) -> None:
        for step in steps:
            if self._abort.is_set():
                return
            try:
                done = self._replace(step) if step.replace else [self._one(step)]
            except OpsError as error:
                done = [Done(host, name, False, error.message) for name in step.names]
            except BaseException as error:
                self._abort.set()
                self._defects.append(error)
                return
            with self._lock:
                self._rolled.done += done
            for each in done:
                self._tell(done_line(each))
            if not all(each.ok for each in done):
                self._abort.set()

    def _one(self, step: Step) -> Done:
        """Restart one process."""
        site, name = self._sites[step.host], step.names[0]
        began = time.monotonic()
        before = site.supervisor.process(name)
        killed = False
        if before.state in RUNS:
            patience = duration(step.stop_seconds)
            self._tell(f"{step.host}: {name} is told to end; it may take {patience}")
            site.supervisor.terminate(name)
            killed = self._await_end(site, name, before.pid, step.stop_seconds)
        elif before.state not in ("BACKOFF", "STOPPING"):
            site.supervisor.start(name)
        drained = time.monotonic() - began
        pid, problem = self._await_running(site, name, before.pid, step.start_seconds)
        return Done(
            host=step.host,
            name=name,
            ok=not problem,
            said=problem or ("" if pid else "ended, and is not needed any more"),
            pid=pid,
            drained_seconds=round(drained, 1),
            seconds=round(time.monotonic() - began, 1),
            killed=killed,
        )

    def _await_end(self, site: _Site, name: str, pid: int, seconds: int) -> bool:
        """Wait until the process ``pid`` has ended; whether it had to be killed."""
        due = time.monotonic() + seconds
        while site.supervisor.process(name).pid == pid:
            if time.monotonic() > due:
                site.supervisor.kill(name)
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _await_running(self, site: _Site, name: str, old: int, seconds: int) -> tuple[int, str]:
        """Wait until a new process runs and works: its pid, and what is wrong with it."""
        due = time.monotonic() + seconds + CONFIRM_SECONDS
        problem = "has not started"
        failed: set[int] = set()
        while True:
            now = site.supervisor.process(name)
            if now.state == "BACKOFF":
                failed.add(now.started_at)
            if len(failed) >= MOST_STARTS:
                said = site.supervisor.last_words(name) or now.problem
                return 0, f"ends at once, {len(failed)} times now: {said}"
            if now.state == "FATAL":
                said = site.supervisor.last_words(name) or now.problem
                return 0, f"does not start: {said or f'status {now.exit_status}'}"
            if now.resting:
                return 0, ""
            if now.state == "STOPPED":
                # Somebody stopped it by hand before or meanwhile.
                site.supervisor.start(name)
            elif now.state == "RUNNING" and now.pid != old:
                problem = self._works(site, now.group, now.pid)
                if not problem:
                    return now.pid, ""
            elif now.state != "STARTING":
                problem = f"is {now.state.lower()}"
            if time.monotonic() > due:
                return now.pid, problem
            time.sleep(POLL_SECONDS)

    def _replace(self, step: Step) -> list[Done]:
        """Restart a whole group from its new file."""
        site = self._sites[step.host]
        began = time.monotonic()
        before = {name: site.supervisor.process(name) for name in step.names}
        patience = duration(step.stop_seconds)
        self._tell(
            f"{step.host}: {step.group} has a new file; all of it is told to end, "
            f"which may take {patience}"
        )
        site.supervisor.stop_group(step.group)
        # supervisord itself kills what is still there when its patience is over.
        due = began + step.stop_seconds + CONFIRM_SECONDS
        while any(site.supervisor.process(name).pid for name in step.names):
            if time.monotonic() > due:
                return [Done(step.host, name, False, "does not end") for name in step.names]
            time.sleep(POLL_SECONDS)
        ended = {name: site.supervisor.process(name) for name in step.names}
        drained = time.monotonic() - began
        site.supervisor.replace_group(step.group)
        there = [each.full_name for each in site.supervisor.processes() if each.group == step.group]
        done = []
        for name in there:
            pid, problem = self._await_running(site, name, 0, step.start_seconds)
            killed = name in before and before[name].pid > 0 and ended[name].exit_status < 0
            taken = round(time.monotonic() - began, 1)
            done.append(
                Done(step.host, name, not problem, problem, pid, round(drained, 1), taken, killed)
            )
        # Of fewer processes than before, the rest is gone as its file wants.
        done += [
            Done(step.host, name, True, "is no longer wanted", 0, round(drained, 1))
            for name in step.names
            if name not in there
        ]
        return done

    def _works(self, site: _Site, group: str, pid: int) -> str:
        """Whether a running process does its work: what is wrong, or nothing."""
        if group in ("api", "flower"):
            answer = facts(site.reached, deep=True).get("http", {}).get(group, {})
            return "" if "status" in answer else f"does not answer: {answer.get('error')}"
        kind = {"worker": "workers", "spare": "workers", "beat": "beats"}.get(group)
        if kind is None:
            return ""
        try:
            status = suite.document(site.reached, ["status", "--schedules", "0"])
        except OpsError as error:
            return error.message
        held = [
            each
            for each in status[kind]
            if each["alive"] and each["host"] == site.hostname and each["pid"] == pid
        ]
        if not held:
            return "runs, and has not taken its lease"
        if status["health"]["status"] == "unhealthy":
            wrong = [f"{k}: {v}" for k, v in status["health"]["checks"].items() if v[:2] != "ok"]
            return f"runs, and the suite is unhealthy: {'; '.join(wrong)}"
        return ""


def plan_lines(waves: Sequence[Wave]) -> list[str]:
    """The plan for people."""
    rows: list[Sequence[Cell]] = []
    for number, wave in enumerate(waves, 1):
        for host, steps in wave.steps.items():
            for step in steps:
                what = "from its new file, all together" if step.replace else "restart"
                if not step.running:
                    what = "start"
                drain = duration(step.stop_seconds) if step.running else None
                typical = duration(step.task_seconds) if step.task_seconds else None
                rows.append((number, host, ", ".join(step.names), what, drain, typical))
    columns = [">wave", "host", "process", "", ">at most", ">tasks typically"]
    return [*Table(columns, rows).lines(colour=words.colours()), "", "dry run: nothing was changed"]


def done_line(done: Done) -> str:
    """One process for people."""
    if not done.ok:
        return f"{done.host}: {done.name} {done.said}"
    if not done.pid:
        return f"{done.host}: {done.name} {done.said}"
    killed = ", killed at its deadline" if done.killed else ""
    return (
        f"{done.host}: {done.name} is back as {done.pid} after {duration(done.seconds)} "
        f"(the old one ended after {duration(done.drained_seconds)}{killed})"
    )


def outcome_lines(rolled: Rolled, env: str) -> list[str]:
    """How it ended, for people."""
    good = sum(each.ok for each in rolled.done)
    if rolled.ok:
        return [f"{good} restarted: all healthy"]
    lines = [f"{'interrupted' if rolled.interrupted else 'aborted'}: {good} restarted"]
    for each in rolled.done:
        if not each.ok:
            lines.append(f"not healthy: {each.host}: {each.name} {each.said}")
            lines.append(f"look at: fab logs -e {env} --limit {each.host} --program {each.name}")
    if rolled.left:
        lines.append(f"not touched: {', '.join(rolled.left)}")
    return lines


_printing = threading.Lock()


def _print(line: str) -> None:
    with _printing:
        print(line, flush=True)
