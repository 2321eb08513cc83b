"""A chat assistant with tools: WeChat, WeCom, DingTalk and Telegram, answered at once or in a task.

Words: an **account** is an app of a channel (an official account, a robot, a bot); a **message**
comes from a user through a webhook; an **answer** is what is said to a chat. A webhook passes
:mod:`.reception`; whoever holds a conversation handles its messages in order (:mod:`.turns`); what
is said goes through an outbox (:mod:`.delivery`).
"""

from ironbeat import Queue, ScheduleSpec, Workload

workload = Workload(
    name="assistant",
    tasks=("ironbeat.workloads.assistant.tasks",),
    # Tools that take long have their own, so that no chat waits behind them.
    queues=(Queue("assistant", prefetch=4), Queue("assistant_tools")),
    task_routes={
        "process_message_async": "assistant",
        "resume_conversation": "assistant",
        "send_alert": "assistant",
        "execute_tool_async": "assistant_tools",
    },
    migrations="ironbeat.workloads.assistant.migrations",
    router="ironbeat.workloads.assistant.router:router",
    sample="ironbeat.workloads.assistant.sample:load",
    commands="ironbeat.workloads.assistant.commands:app",
    schedules=(
        ScheduleSpec(
            "cleanup-expired-conversations",
            task="cleanup_expired_conversations",
            cron="0 * * * *",
            expires=3600,
        ),
        ScheduleSpec(
            "cleanup-old-logs",
            task="cleanup_old_logs",
            cron="0 2 * * *",
            timezone="Asia/Taipei",
            expires=3600,
        ),
        ScheduleSpec("refresh-access-token", task="refresh_access_token", every="2m", expires=120),
        # What a killed process left half done; nothing waits for it in the ordinary case.
        ScheduleSpec(
            "resume-unanswered-messages", task="resume_unanswered_messages", every="30s", expires=30
        ),
    ),
)
