"""Runs errands and keeps a trace of each execution in a table of its own."""

from ironbeat import Queue, ScheduleSpec, Workload

workload = Workload(
    name="errands",
    tasks=("errands.tasks",),
    queues=(Queue("errands"), Queue("errands_long")),
    task_routes={
        "errands.tick": "errands",
        "errands.run": "errands",
        "errands.haul": "errands_long",
        "errands.note": "errands",
        "errands.fail": "errands",
        "errands.crash": "errands",
        "errands.fill": "errands",
    },
    schedules=(ScheduleSpec(name="errands-tick", task="errands.tick", every="5s"),),
    migrations="errands.migrations",
)
