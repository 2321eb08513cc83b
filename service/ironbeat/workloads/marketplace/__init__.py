"""Housekeeping of a task marketplace: customer service, deadlines, expiries, points, statistics."""

from ironbeat import ScheduleSpec, Workload


def _every(seconds: int, name: str, task: str) -> ScheduleSpec:
    # A run that was not begun before the next one is due has nothing to do that the next will not.
    return ScheduleSpec(
        name, task=f"app.celery_tasks.{task}", every=float(seconds), expires=seconds
    )


def _daily(hour: int, name: str, task: str) -> ScheduleSpec:
    return ScheduleSpec(
        name,
        task=f"app.celery_tasks.{task}",
        cron=f"0 {hour} * * *",
        timezone="Asia/Taipei",
        expires=3600,
    )


workload = Workload(
    name="marketplace",
    tasks=("ironbeat.workloads.marketplace.tasks",),
    migrations="ironbeat.workloads.marketplace.migrations",
    sample="ironbeat.workloads.marketplace.sample:load",
    schedules=(
        _every(30, "process-customer-service-queue", "process_customer_service_queue"),
        _every(30, "auto-end-timeout-chats", "auto_end_timeout_chats"),
        _every(30, "send-timeout-warnings", "send_timeout_warnings"),
        _every(60, "cancel-expired-tasks", "cancel_expired_tasks"),
        _every(300, "check-expired-coupons", "check_expired_coupons"),
        _every(300, "check-expired-invitation-codes", "check_expired_invitation_codes"),
        _every(300, "check-expired-points", "check_expired_points"),
        _every(300, "check-and-end-activities", "check_and_end_activities"),
        _every(600, "update-all-users-statistics", "update_all_users_statistics"),
        _daily(2, "cleanup-long-inactive-chats", "cleanup_long_inactive_chats"),
        _daily(
            3,
            "update-featured-task-experts-response-time",
            "update_featured_task_experts_response_time",
        ),
    ),
)
