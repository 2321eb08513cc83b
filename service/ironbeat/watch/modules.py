"""Whether the task modules of the workloads import."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass

from ironbeat.workload import Workload


@dataclass(frozen=True, slots=True)
class Module:
    """A task module of a workload; ``error`` says why it does not import, ``None`` if it does."""

    workload: str
    name: str
    error: str | None


def import_modules(workloads: Iterable[Workload]) -> tuple[Module, ...]:
    """Every task module of ``workloads``, imported into this process to see whether it can be."""
    found = []
    for workload in workloads:
        for name in workload.tasks:
            try:
                importlib.import_module(name)
            except Exception as error:
                found.append(Module(workload.name, name, f"{type(error).__name__}: {error}"))
            else:
                found.append(Module(workload.name, name, None))
    return tuple(found)
