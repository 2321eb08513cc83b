"""Handing work over: submit, follow, cancel, whatever carries the messages."""

from ironbeat.dispatch.manager import TaskManager, TaskRejected
from ironbeat.dispatch.progress import report_progress

__all__ = ["TaskManager", "TaskRejected", "report_progress"]
