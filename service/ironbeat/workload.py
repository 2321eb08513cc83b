"""The contract a workload fulfils, and how workloads are found.

A workload is a package of tasks, tables, queues, schedules and, if it has any, HTTP routes. It
announces itself with an entry point in the group ``ironbeat.workloads`` that names a
:class:`Workload`; the five that come with Ironbeat do so exactly as a user's own package does::

    [project.entry-points."ironbeat.workloads"]
    billing = "acme_billing:workload"

Everything but the name is optional. Attributes that name code are strings (``"package.module"`` or
``"package.module:attribute"``), so that describing a workload imports none of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, Literal

ENTRY_POINT_GROUP = "ironbeat.workloads"

Kind = Literal["cron", "interval", "solar", "once"]
CatchUp = Literal["skip", "latest", "all", "window"]
Overlap = Literal["skip", "queue_one", "allow", "cancel_other"]

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class WorkloadError(Exception):
    """A workload cannot be used: its entry point does not load or its description is wrong."""


@dataclass(frozen=True)
class Queue:
    """A queue that a workload consumes from.

    ``routing_key`` defaults to the queue's name. ``prefetch`` is how many messages a worker may
    hold unstarted (``None``: the setting ``worker_prefetch_multiplier``; raise it for queues of
    short tasks only). ``max_length`` refuses submissions beyond that many waiting messages.
    """

    name: str
    routing_key: str | None = None
    prefetch: int | None = None
    max_length: int | None = None


def seconds_text(seconds: float) -> str:
    """Seconds as an interval expression, exact to the microsecond: ``90s``, ``1.5s``."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


@dataclass(frozen=True)
class ScheduleSpec:
    """A schedule declared in code. Exactly one of ``cron``, ``every``, ``solar``, ``once`` is set.

    ``cron``: five or six fields (seconds first) or ``@daily`` and friends. ``every``: seconds, a
    ``timedelta``, or text such as ``"30s"``, ``"5m"``, ``"1h30m"``. ``solar``:
    ``"sunset@25.03,121.56"``. ``once``: an ISO 8601 instant. ``expires`` and ``jitter`` are
    seconds. ``timezone`` of ``None`` takes the setting ``timezone``. Arguments must be
    representable as JSON; so must ``headers``, which go out with every message beside Celery's own.
    """

    name: str
    task: str
    cron: str | None = None
    every: float | str | timedelta | None = None
    solar: str | None = None
    once: str | None = None
    timezone: str | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    priority: int | None = None
    starts_at: str | None = None
    ends_at: str | None = None
    jitter: int = 0
    expires: int | None = None
    catch_up: CatchUp = "latest"
    catch_up_max: int = 100
    catch_up_window: int | None = None
    overlap: Overlap = "skip"
    enabled: bool = True

    def cadence(self) -> tuple[Kind, str]:
        """The kind of this schedule and its expression as text."""
        given: list[tuple[Kind, str]] = []
        if self.cron is not None:
            given.append(("cron", self.cron))
        if self.every is not None:
            every = self.every
            if isinstance(every, timedelta):
                every = every.total_seconds()
            text = every if isinstance(every, str) else seconds_text(every)
            given.append(("interval", text))
        if self.solar is not None:
            given.append(("solar", self.solar))
        if self.once is not None:
            given.append(("once", self.once))
        if len(given) != 1:
            raise WorkloadError(
                f"schedule {self.name!r} must set exactly one of cron, every, solar, once; "
                f"it sets {len(given)}"
            )
        return given[0]


@dataclass(frozen=True)
class Workload:
    """A package of tasks, tables, queues and schedules that the platform runs.

    ``tasks``: modules whose import registers the Celery tasks. ``migrations``: the package that
    holds the Alembic versions of the workload's own branch; its tables live in the PostgreSQL
    schema ``schema`` (default: the workload's name). ``router``: a FastAPI ``APIRouter``.
    ``sample``: a callable ``sample(*, scale: int, progress: Callable[[int, int], None]) -> dict``
    that loads deterministic sample rows and returns how many of each, or raises ``ValueError``
    saying why it cannot, with nothing changed. ``commands``: a Typer
    application mounted under ``ironbeat NAME``. ``soft_time_limit`` and ``time_limit`` (seconds)
    replace the platform's for this workload's tasks. ``task_routes``: for a task the name of its
    queue, or ``{"queue": …, "priority": …}``; the lower priority number goes first, over all queues
    that a worker consumes.

    ``rq``: its tasks may be carried by RQ (:class:`ironbeat.HybridTaskManager`), so RQ's workers
    run where it is on.

    A workload that needs heavy packages leaves them to an ``extra`` of its package and names in
    ``needs`` the modules that they bring (top-level names, as one imports them). Where one of these
    is not installed the workload is off, and :attr:`lacks` says why: its modules are not imported,
    its tables not made and its schedules not brought in, and everything else runs as before.
    """

    name: str
    tasks: tuple[str, ...] = ()
    queues: tuple[Queue, ...] = ()
    schedules: tuple[ScheduleSpec, ...] = ()
    migrations: str | None = None
    schema: str | None = None
    router: str | None = None
    sample: str | None = None
    commands: str | None = None
    task_routes: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    soft_time_limit: int | None = None
    time_limit: int | None = None
    extra: str | None = None
    needs: tuple[str, ...] = ()
    rq: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise WorkloadError(
                f"workload name {self.name!r}: use lower-case letters, digits, '-' and '_', "
                "beginning with a letter"
            )
        if dotted := [name for name in self.needs if "." in name]:
            # To look for a module inside a package is to import the package.
            raise WorkloadError(
                f"workload {self.name!r} needs {dotted}: name top-level modules, without a dot"
            )

    @property
    def lacks(self) -> str | None:
        """Why this workload cannot run here and what to do about it; ``None``: it can."""
        missing = [name for name in self.needs if find_spec(name) is None]
        if not missing:
            return None
        modules = f"no module named {', '.join(missing)}"
        if self.extra is None:
            return f"{modules}; install the package that has it"
        return (
            f"its extra {self.extra!r} is not installed ({modules}); run "
            f"`scripts/up --with {self.extra}`, on hosts set `service_extras: [{self.extra}]` and "
            f"run site.yml, or install its package with [{self.extra}]"
        )

    @property
    def database_schema(self) -> str:
        """The PostgreSQL schema that holds this workload's tables."""
        return self.schema or self.name.replace("-", "_")

    def holds(self, module: str) -> bool:
        """Whether a module belongs to this workload: one of its task modules, or beside one."""
        packages = {name.rpartition(".")[0] for name in self.tasks} - {""}
        return module in self.tasks or any(module.startswith(f"{p}.") for p in packages)


def load(entry_point: EntryPoint) -> Workload:
    """The workload behind one entry point.

    Raises :class:`WorkloadError` naming the entry point when it does not load or is no workload.
    """
    try:
        found = entry_point.load()
    except Exception as error:
        raise WorkloadError(
            f"workload {entry_point.name!r} ({entry_point.value}) does not load: {error!r}"
        ) from error
    if not isinstance(found, Workload):
        raise WorkloadError(
            f"workload {entry_point.name!r} ({entry_point.value}) is a {type(found).__name__}, "
            "not an ironbeat.Workload"
        )
    if found.name != entry_point.name:
        raise WorkloadError(
            f"workload {found.name!r} is announced under the entry point {entry_point.name!r}; "
            "give both the same name"
        )
    return found


def discover(enabled: Iterable[str] | None = None) -> tuple[Workload, ...]:
    """All installed workloads that can run here, or those named in ``enabled``, sorted by name.

    Raises :class:`WorkloadError` when a named workload is not installed, or lacks what it needs.
    """
    installed = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    names = sorted(installed) if enabled is None else sorted(set(enabled))
    missing = [name for name in names if name not in installed]
    if missing:
        raise WorkloadError(
            f"workloads {missing} are switched on but not installed; installed are "
            f"{sorted(installed)}. Install the package or change IRONBEAT_WORKLOADS."
        )
    found = tuple(load(installed[name]) for name in names)
    if enabled is None:
        return tuple(workload for workload in found if workload.lacks is None)
    for workload in found:
        if reason := workload.lacks:
            raise WorkloadError(
                f"workload {workload.name!r} is switched on but cannot run: {reason}. Or take its "
                "name out of IRONBEAT_WORKLOADS."
            )
    return found


def switched_off(enabled: Iterable[str] | None = None) -> dict[str, str]:
    """The installed workloads that do not run, by name, each with the reason.

    ``enabled`` as for :func:`discover`, which raises for those that are named and cannot run; here
    they are left out, and so are those that do not load.
    """
    named = None if enabled is None else set(enabled)
    reasons: dict[str, str] = {}
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        if named is not None:
            if point.name not in named:
                reasons[point.name] = "not named in IRONBEAT_WORKLOADS"
            continue
        try:
            lacking = load(point).lacks
        except WorkloadError:
            continue
        if lacking:
            reasons[point.name] = lacking
    return reasons
