"""Counts its own executions in a file, whatever the stores say of them."""

from ironbeat import Queue, ScheduleSpec, Workload

workload = Workload(
    name="counting",
    tasks=("counting.tasks",),
    queues=(Queue("counting"),),
    task_routes={
        f"counting.{task}": "counting"
        for task in ("tick", "work", "segfault", "outgrown", "greedy", "hang")
    },
    schedules=tuple(
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
)
