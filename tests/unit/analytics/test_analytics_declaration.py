"""What the workload declares is what its owners call by name."""

from __future__ import annotations

import importlib

from celery import current_app

from ironbeat import load_queries
from ironbeat.workload import discover

TASKS = "library.rvt_analytics.tasks"

# REQUIREMENTS of the owners: schedule -> (cron, task, kwargs, expires).
OWNERS = {
    "process-new-chat-vectors-hourly": (
        "0 * * * *",
        "rebuild_chat_vectors",
        {"force_rebuild": False, "user_role": "user", "min_length": 5},
        None,
    ),
    "process-assistant-vectors-periodic": (
        "30 */6 * * *",
        "rebuild_chat_vectors",
        {"force_rebuild": False, "user_role": "assistant", "min_length": 5},
        None,
    ),
    "update-question-analytics-daily": (
        "30 3 * * *",
        "precompute_question_classifications",
        {},
        3600,
    ),
    "preload-vector-services-daily": ("0 3 * * *", "preload_vector_services", {}, None),
    "cleanup-cache-daily": ("0 2 * * *", "cleanup_cache", {}, None),
}


def test_schedules_are_those_of_the_owners() -> None:
    (workload,) = discover(["analytics"])
    declared = {
        spec.name: (spec.cron, spec.task, dict(spec.kwargs), spec.expires)
        for spec in workload.schedules
    }
    assert declared == {
        name: (cron, f"{TASKS}.{task}", kwargs, expires)
        for name, (cron, task, kwargs, expires) in OWNERS.items()
    }
    assert {spec.timezone for spec in workload.schedules} == {"Asia/Taipei"}


def test_every_scheduled_task_is_registered() -> None:
    (workload,) = discover(["analytics"])
    for module in workload.tasks:
        importlib.import_module(module)
    registered = {name for name in current_app.tasks if name.startswith(TASKS)}
    assert {spec.task for spec in workload.schedules} <= registered


def test_queries_are_found_by_name() -> None:
    for name, text in load_queries("ironbeat.workloads.analytics", "queries.sql").items():
        assert text.startswith(f"-- {name}: ")
