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
    replace the platform's for this workload's tasks.
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
    task_routes: Mapping[str, str] = field(default_factory=dict)
    soft_time_limit: int | None = None
    time_limit: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise WorkloadError(
                f"workload name {self.name!r}: use lower-case letters, digits, '-' and '_', "
                "beginning with a letter"
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
    """All installed workloads, or those named in ``enabled``, sorted by name.

    Raises :class:`WorkloadError` when a named workload is not installed.
    """
    installed = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    names = sorted(installed) if enabled is None else sorted(set(enabled))
    missing = [name for name in names if name not in installed]
    if missing:
        raise WorkloadError(
            f"workloads {missing} are switched on but not installed; installed are "
            f"{sorted(installed)}. Install the package or change IRONBEAT_WORKLOADS."
        )
    return tuple(load(installed[name]) for name in names)
