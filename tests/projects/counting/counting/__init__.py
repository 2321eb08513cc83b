"""Counts its own executions in a file, whatever the stores say of them."""

from ironbeat import Queue, ScheduleSpec, Workload

workload = Workload(
    name="counting",
    tasks=("counting.tasks",),
    queues=(Queue("counting"),),
    task_routes={
        f"counting.{task}": "counting"
        for task in ("tick", "chime", "work", "segfault", "outgrown", "greedy", "fill", "hang")
    },
    schedules=(
        *(
            ScheduleSpec(
                name=f"tick-{number:02}",
                task="counting.tick",
                every="1s",
                args=(number,),
                overlap="allow",
                catch_up="all",
                catch_up_max=600,
            )
            for number in range(20)
        ),
        # In Berlin 02:00 to 03:00 is left out in March, and comes twice in October.
        *(
            ScheduleSpec(
                name=f"chime-{name}", task="counting.chime", cron=cron, timezone="Europe/Berlin"
            )
            for name, cron in (
                ("minute", "* * * * *"),
                ("0200", "0 2 * * *"),
                ("0230", "30 2 * * *"),
            )
        ),
    ),
)
