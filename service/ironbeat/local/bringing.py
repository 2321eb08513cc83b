"""Bringing the suite up until it is healthy, and down again without losing anything."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ironbeat.embedded.account import account_for, servers_directory
from ironbeat.embedded.temporary import answers, pongs
from ironbeat.local.installation import Installation, InstallationError
from ironbeat.local.progress import Progress
from ironbeat.local.supervised import SPARE, Process, Supervisor, reachable
from ironbeat.migrations import first_revisions
from ironbeat.settings import Settings
from ironbeat.workload import discover, switched_off

STORE_SECONDS = 90.0
FOREIGN_STORE_SECONDS = 5.0
HEALTHY_SECONDS = 180.0
# A program that has ended so often since we began to wait will not come by itself.
ATTEMPTS = 3
TRACEBACK_LINES = 6
POLL_SECONDS = 0.2

STORES = ("postgres", "redis")
PROGRAMS = ("beat", "worker", "flower", "api")
# Applied to an empty database only.
FIRST_REVISION = "0001_platform"
# Names the workloads whose sample rows are still to be loaded.
SAMPLE_WANTED = "sample-wanted"
SAMPLE_USERS = 1000


class NotHealthy(Exception):
    """The suite does not get healthy; the message says what is not, and shows its log."""


def up(installation: Installation, progress: Progress) -> Settings:
    """Bring everything up and wait until it is healthy; twice is harmless.

    Raises :class:`NotHealthy`, ``InstallationError``, ``SupervisorError`` or ``SettingsError``.
    """
    with _alone(installation), installation.promises:
        supervisor = Supervisor(installation.run_dir)
        running = supervisor.running
        with progress.step("Settings") as step:
            if not running and (orphans := supervisor.stop_orphans()):
                step.done(f"stopped what a killed supervisord left behind: {', '.join(orphans)}")
            installation.prepare(os.environ, running)
            settings = installation.activate()
        for note in installation.notes:
            progress.note(note)
        _tell_of_shelter(installation, progress)
        started_with = installation.state_dir / "started-with"
        before = started_with.read_text() if started_with.exists() else ""
        if running and before != installation.fingerprint():
            progress.note(
                "settings or packages have changed since the programs were started; to apply them: "
                "scripts/up --down, then scripts/up"
            )

        with progress.step("Database and broker") as step:
            if not running:
                supervisor.start(
                    installation.programs / "supervisord",
                    installation.root / "supervisor" / "supervisord.conf",
                    installation.supervisor_environment(),
                )
                started_with.write_text(installation.fingerprint())
            supervisor.ensure_started(STORES)
            _wait_for_stores(installation, settings, supervisor, step)

        with progress.step("Tables") as step:
            applied = _command(installation, step, "db", "upgrade")["applied"]
            step.done(f"{len(applied)} revisions applied" if applied else "up to date")
        _want_samples(installation, settings, applied)
        _load_samples(installation, progress)
        for name, reason in switched_off(settings.enabled_workloads).items():
            progress.note(f"workload {name} is off: {reason}")

        # The programs take a while to start; meanwhile their schedules come in.
        supervisor.ensure_started()
        with progress.step("Schedules") as step:
            step.done(_counts(_command(installation, step, "schedule", "import")))
        with progress.step("Programs") as step:
            step.done(_wait_until_healthy(settings, supervisor, step))
        if FIRST_REVISION in applied:
            # The database's directory was made without waiting for the disk; that may take long.
            subprocess.Popen(["sync"], start_new_session=True)
        return settings


def down(installation: Installation, progress: Progress, now: bool) -> None:
    """Stop everything and keep the data. ``now``: do not wait for tasks that run."""
    with _alone(installation):
        supervisor = Supervisor(installation.run_dir)
        with progress.step("Stopping") as step:
            if not supervisor.running:
                orphans = supervisor.stop_orphans()
                step.done(", ".join(orphans) if orphans else "nothing runs")
                return
            if now:
                supervisor.kill("worker")

            def waiting(processes: list[Process]) -> None:
                names = ", ".join(each.name for each in processes) or "supervisord"
                busy = any(each.group == "worker" for each in processes)
                step.now(names + (" (a task is finished first; --now ends it)" if busy else ""))

            supervisor.shut_down(STORES, waiting)
            step.done("the data are kept; ./scripts/up goes on with them")


def status(installation: Installation) -> list[Process]:
    """The processes as supervisord sees them; none when it does not run."""
    supervisor = Supervisor(installation.run_dir)
    return supervisor.processes() if supervisor.running else []


@contextmanager
def _alone(installation: Installation) -> Iterator[None]:
    """Only one goes up or down at a time."""
    installation.state_dir.mkdir(parents=True, exist_ok=True)
    with (installation.state_dir / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InstallationError(
                "another scripts/up is at work on this installation; wait for it to end"
            ) from None
        yield


def _tell_of_shelter(installation: Installation, progress: Progress) -> None:
    """Say where the servers' data lie, when that is not where everything else is."""
    if not installation.embedded:
        return
    account = account_for(installation.state_dir)
    try:
        directory = servers_directory(installation.state_dir, account)
    except PermissionError as error:
        raise InstallationError(str(error)) from None
    if directory != installation.state_dir.resolve():
        progress.note(
            f"the data of {' and '.join(installation.embedded)} lie in {directory}: they run as "
            f"an ordinary user, who cannot reach {installation.state_dir}"
        )


class _Attempts:
    """Tells which processes end again and again, whatever state they are seen in."""

    def __init__(self) -> None:
        self._pids: dict[str, set[int]] = {}

    def hopeless(self, processes: list[Process]) -> list[Process]:
        """Those of ``processes`` that were given up, or have been started too often."""
        for process in processes:
            if process.pid:
                self._pids.setdefault(process.name, set()).add(process.pid)
        return [
            each
            for each in processes
            if each.state == "FATAL" or len(self._pids.get(each.name, ())) > ATTEMPTS
        ]


def _wait_for_stores(
    installation: Installation, settings: Settings, supervisor: Supervisor, progress: Progress
) -> None:
    """Wait until database and broker answer; those that are not ours only get a moment."""
    questions: dict[str, Callable[[], bool]] = {
        "postgres": lambda: answers(settings.database_url.get_secret_value())
    }
    broker = settings.broker_url.get_secret_value()
    # Another kind of address is asked by the programs themselves.
    if settings.use_redis and broker.startswith(("redis://", "rediss://")):
        questions["redis"] = lambda: pongs(broker)
    attempts = _Attempts()
    for name, answered in questions.items():
        own = name in installation.embedded
        deadline = time.monotonic() + (STORE_SECONDS if own else FOREIGN_STORE_SECONDS)
        while not answered():
            progress.now(f"waiting for {name}")
            process = [each for each in supervisor.processes() if each.name == name]
            if own and (time.monotonic() > deadline or attempts.hopeless(process)):
                raise NotHealthy(_told(process))
            if time.monotonic() > deadline:
                setting = "database_url" if name == "postgres" else "broker_url"
                raise NotHealthy(
                    f"{name} does not answer at the address of the setting {setting}, which is "
                    f"your own: is it up, and are user and password right? "
                    f"Correct it in {installation.env_file} and run scripts/up again"
                )
            time.sleep(POLL_SECONDS)


def _want_samples(installation: Installation, settings: Settings, applied: list[str]) -> None:
    """Note whose tables were just made: sample rows go there once, never among the user's own."""
    if not applied:
        return
    workloads = [each for each in discover(settings.enabled_workloads) if each.sample]
    fresh = [name for name, first in first_revisions(workloads).items() if first in applied]
    if fresh:
        wanted = installation.state_dir / SAMPLE_WANTED
        before = wanted.read_text().split() if wanted.exists() else []
        wanted.write_text("\n".join(dict.fromkeys([*before, *fresh])))


def _load_samples(installation: Installation, progress: Progress) -> None:
    """Load the sample rows that were noted; those that an interruption kept back, too."""
    wanted = installation.state_dir / SAMPLE_WANTED
    if not wanted.exists():
        return
    with progress.step("Sample rows") as step:
        names = wanted.read_text().split()
        told = []
        for number, name in enumerate(names):
            found = _command(installation, step, "sample", name, f"--users={SAMPLE_USERS}")
            told.append(f"{sum(found['rows'].values())} rows for {name}")
            wanted.write_text("\n".join(names[number + 1 :]))
        step.done(", ".join(told))
    wanted.unlink()


def _command(installation: Installation, progress: Progress, *arguments: str) -> Any:
    """What ``ironbeat ARGUMENTS --json`` answers; raises :class:`NotHealthy` when it fails."""
    command = [str(installation.programs / "ironbeat"), *arguments, "--json"]
    process = subprocess.Popen(
        command,
        env=installation.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while True:
        try:
            output, errors = process.communicate(timeout=POLL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            progress.now("at work")
    if process.returncode != 0:
        raise NotHealthy(f"ironbeat {' '.join(arguments)} failed: {_reason(output, errors)}")
    return json.loads(output)


def _reason(output: str, errors: str) -> str:
    """What a command that failed said, as words: with --json it says it as JSON."""
    for text in (errors, output):
        try:
            found = json.loads(text)
        except ValueError:
            continue
        if isinstance(found, dict) and "error" in found:
            return f"{found['error']}\n{found.get('hint') or ''}".rstrip()
    return (errors + output).strip()


def _counts(found: Any) -> str:
    """What an import came to: its numbers, in words."""
    if not isinstance(found, dict):
        return "imported"
    numbers = {
        key: len(value) if isinstance(value, list) else value for key, value in found.items()
    }
    told = [f"{value} {key}" for key, value in numbers.items() if isinstance(value, int) and value]
    return ", ".join(told) or "up to date"


def _wait_until_healthy(settings: Settings, supervisor: Supervisor, progress: Progress) -> str:
    """Wait until every process runs and answers; returns how it is then."""
    deadline = time.monotonic() + HEALTHY_SECONDS
    attempts = _Attempts()
    while True:
        processes = [each for each in supervisor.processes() if each.group != SPARE]
        health = _health(settings)
        missing = _missing(settings, processes, health)
        if not missing:
            return f"{len(processes)} processes, {health.get('status')}"
        hopeless = attempts.hopeless(processes)
        if hopeless or time.monotonic() > deadline:
            suspects = hopeless or [
                each for each in processes if not each.running or each.group in missing
            ]
            raise NotHealthy("; ".join(missing.values()) + "\n" + _told(suspects))
        progress.now("; ".join(missing.values()))
        time.sleep(POLL_SECONDS)


def _missing(
    settings: Settings, processes: list[Process], health: dict[str, Any]
) -> dict[str, str]:
    """What keeps the suite from being healthy, by the program that it concerns."""
    missing: dict[str, str] = {}
    for process in processes:
        if not process.running:
            missing[process.group] = f"{process.name} is {process.state.lower()}"
    if not missing and not reachable(settings.flower_host, settings.flower_port):
        missing["flower"] = "Flower does not answer yet"
    if not health:
        missing.setdefault("api", "the API does not answer yet")
    elif health.get("status") not in ("healthy", "degraded"):
        checks = health.get("checks", {})
        bad = [f"{name}: {value}" for name, value in checks.items() if not _is_ok(value)]
        missing.setdefault("worker", ", ".join(bad) or f"the suite is {health.get('status')}")
    elif health["status"] == "degraded" and settings.use_redis:
        checks = health.get("checks", {})
        missing.setdefault("worker", f"still degraded: {json.dumps(checks)}")
    return missing


def _is_ok(value: Any) -> bool:
    return str(value).startswith("ok")


def _health(settings: Settings) -> dict[str, Any]:
    """What ``/health`` says; empty when nobody answers."""
    host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
    request = urllib.request.Request(f"http://{host}:{settings.api_port}/health")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=3) as response:
            body = response.read()
    except urllib.error.HTTPError as error:  # 503, with the same body
        body = error.read()
    except OSError:
        return {}
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _told(processes: list[Process]) -> str:
    """Each process, its problem, and the end of its log."""
    parts = []
    for process in processes:
        problem = f" ({process.problem})" if process.problem else ""
        tail = process.log_tail() or "(its log is empty)"
        parts.append(
            f"{process.name} is {process.state.lower()}{problem}; {process.logfile} ends:\n"
            + "\n".join(f"    {line}" for each in tail.splitlines() for line in _readable(each))
        )
        if "address already in use" in tail.lower():
            parts.append(
                "Another program took its port meanwhile: run scripts/up --down, then scripts/up, "
                "which takes the next free one."
            )
    return "\n".join(parts)


def _readable(line: str) -> list[str]:
    """A line of a log for people: ours are JSON, and may hold a traceback, whose end tells most."""
    try:
        found = json.loads(line)
    except ValueError:
        return [line]
    if not isinstance(found, dict) or "event" not in found:
        return [line]
    told = f"{found.get('timestamp', '')[:19]} {found.get('level', '')}: {found['event']}"
    traceback = str(found.get("exception") or "").splitlines()
    return [told, *traceback[-TRACEBACK_LINES:]]


def shown_path(path: Path) -> str:
    """``path`` as one would type it here."""
    here = Path.cwd()
    if here != Path("/") and path.is_relative_to(here):
        return shlex.quote(str(path.relative_to(here)))
    return shlex.quote(str(path))
