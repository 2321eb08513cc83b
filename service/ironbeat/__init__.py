"""Ironbeat: Celery on your own machines, run as if it mattered.

The names exported here are the platform's public interface: a workload or a user's own task
package imports these and nothing deeper. They are loaded on first use, so that importing a task
module stays cheap and never opens a connection.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Queue": "ironbeat.workload",
    "ScheduleSpec": "ironbeat.workload",
    "Workload": "ironbeat.workload",
    "Throttle": "ironbeat.throttle",
    "Settings": "ironbeat.settings",
    "get_settings": "ironbeat.settings",
    "make_setting_last": "ironbeat.settings_file:make_last",
    "connection": "ironbeat.database",
    "session": "ironbeat.database",
    "load_queries": "ironbeat.queries:load",
    "encrypt": "ironbeat.execution.sealing",
    "decrypt": "ironbeat.execution.sealing",
    "SealingError": "ironbeat.execution.sealing",
    "OWN_GUARD": "ironbeat.api.security",
    "TAKES_DATA": "ironbeat.api.audited",
    "audited": "ironbeat.cli.audited",
    "CommandError": "ironbeat.cli.failures",
    "ExitStatus": "ironbeat.cli.failures",
    "TaskManager": "ironbeat.dispatch",
    "Submit": "ironbeat.dispatch",
    "QueueFull": "ironbeat.capacity",
    "HybridTaskManager": "ironbeat.dispatch",
    "Call": "ironbeat.dispatch",
    "Submitted": "ironbeat.dispatch",
    "CeleryMonitor": "ironbeat.dispatch",
    "RQMonitor": "ironbeat.dispatch",
    "report_progress": "ironbeat.dispatch",
    "adopt": "ironbeat.app",
    "purge_queue": "ironbeat.dispatch.purging",
    "suite_status": "ironbeat.watch:status",
    "run_command": "ironbeat.cli:run",
    "create_app": "ironbeat.app",
}

__all__ = [*_PUBLIC, "celery"]


def __getattr__(name: str) -> Any:
    # `celery -A ironbeat …` looks for an attribute named `celery`.
    if name == "celery":
        return importlib.import_module("ironbeat.app").current_app()
    if name in _PUBLIC:
        module, _, attribute = _PUBLIC[name].partition(":")
        return getattr(importlib.import_module(module), attribute or name)
    raise AttributeError(f"module 'ironbeat' has no attribute {name!r}")
