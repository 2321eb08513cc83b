"""What the workload declares is what its owners call by name."""

from __future__ import annotations

import inspect

from ironbeat import create_app, load_queries
from ironbeat.settings import get_settings
from ironbeat.workload import discover
from ironbeat.workloads.speech import TaskManager, monitor


def test_three_queues_have_each_a_schedule_and_a_priority_of_their_own() -> None:
    (workload,) = discover(["speech"])
    assert [queue.name for queue in workload.queues] == ["ai_analysis", "maintenance", "health"]
    by_queue = {spec.queue: spec.priority for spec in workload.schedules}
    assert by_queue["ai_analysis"] < by_queue["maintenance"] < by_queue["health"]


def test_tasks_go_to_their_queue_with_its_priority(monkeypatch) -> None:
    monkeypatch.setenv("IRONBEAT_WORKLOADS", "speech")
    get_settings.cache_clear()
    application = create_app()
    get_settings.cache_clear()
    (workload,) = discover(["speech"])
    for spec in workload.schedules:
        route = application.amqp.router.route({}, spec.task)
        assert (route["queue"].name, route["priority"]) == (spec.queue, spec.priority)
    signature = inspect.signature(application.tasks["analyze_audio_task"].run)
    assert list(signature.parameters) == ["practice_record_id", "params"]


def test_the_owners_functions_are_there() -> None:
    assert inspect.iscoroutinefunction(TaskManager.submit_audio_analysis)
    signature = inspect.signature(TaskManager.submit_audio_analysis)
    assert list(signature.parameters)[1:] == ["practice_record_id", "analysis_params"]
    assert callable(TaskManager.get_task_status)
    for name in ("get_worker_stats", "get_queue_length", "purge_queue"):
        assert callable(getattr(monitor, name))


def test_every_query_says_what_it_does() -> None:
    for name, text in load_queries("ironbeat.workloads.speech", "queries.sql").items():
        assert len(text.splitlines()[0].removeprefix(f"-- {name}: ")) > 5, name
