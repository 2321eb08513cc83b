"""Handing work over: submit, follow, cancel, whatever carries the messages."""

from ironbeat.dispatch.hybrid import Call, HybridTaskManager, Submitted
from ironbeat.dispatch.manager import Submit, TaskManager, TaskRejected
from ironbeat.dispatch.monitors import CeleryMonitor, RQMonitor
from ironbeat.dispatch.progress import report_progress

__all__ = [
    "Call",
    "CeleryMonitor",
    "HybridTaskManager",
    "RQMonitor",
    "Submit",
    "Submitted",
    "TaskManager",
    "TaskRejected",
    "report_progress",
]
