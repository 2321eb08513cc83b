"""Many submissions at once: what is filled in and put in one step is what Celery would send."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import signals
from kombu import Connection, Queue
from redis import Redis
from tests.integration.test_task_manager import manager, shop

from ironbeat import TaskManager, submission
from ironbeat.dispatch import template
from ironbeat.dispatch.manager import Submit, TaskRejected
from ironbeat.execution import publishing
from ironbeat.settings import Settings

__all__ = ["manager", "shop"]

ARGUMENTS: list[tuple[list[Any], dict[str, Any]]] = [
    ([1, 2], {}),
    ([], {"x": "問題 \U0001f600", "y": None}),
    ([{"deep": [1.5, True]}, "x" * 3000], {}),
    ([datetime(2026, 1, 1, tzinfo=UTC), 2**70], {}),
    (["\x00 and \u2028", "\udcff"], {}),
]


def differing(run: Any) -> dict[str, Any]:
    """What a run carries besides its id and time."""
    message = json.loads(run.message)
    message["headers"]["ironbeat"].pop("created_at")
    text = json.dumps(message, sort_keys=True).replace(run.id, "ID")
    fields = {name: getattr(run, name) for name in ("task", "queue", "argsrepr", "kwargsrepr")}
    return {"message": text, "root": run.root_id == run.id, "durable": run.durable, **fields}


@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS)
def test_a_form_filled_in_says_what_celery_says(
    manager: TaskManager, args: list[Any], kwargs: dict[str, Any]
) -> None:
    task = manager.app.tasks["adopted.add"]
    asked = Submit("adopted.add", args, kwargs, priority=3)
    form = template.Template(
        manager.app, manager._make(task, Submit(task.name, [7, 8], priority=3))
    )
    assert differing(form.run(args, kwargs)) == differing(manager._make(task, asked))


def test_a_form_is_not_cut_where_somebody_looks_at_each_message(manager: TaskManager) -> None:
    task = manager.app.tasks["adopted.add"]
    assert template.can_be_cut(manager.app, task)

    def look(**_: Any) -> None:
        """A receiver."""

    signals.before_task_publish.connect(look)
    try:
        assert not template.can_be_cut(manager.app, task)
    finally:
        signals.before_task_publish.disconnect(look)


def test_many_are_committed_and_published_in_order(
    manager: TaskManager, settings: Settings
) -> None:
    ids = manager.submit_many((Submit("adopted.add", [n, n]) for n in range(250)), batch=100)
    assert len(set(ids)) == 250
    with Redis.from_url(settings.broker_url.get_secret_value()) as client:
        raw = [json.loads(each) for each in client.lrange("celery", 0, -1)]
    assert [each["headers"]["id"] for each in reversed(raw)] == ids
    assert manager.status(ids[-1]).message["body"][0] == [249, 249]


def test_a_bad_submission_keeps_its_batch_from_being_written(
    manager: TaskManager, settings: Settings
) -> None:
    asked = [Submit("adopted.add", [n, n]) for n in range(5)]
    with pytest.raises(TaskRejected, match=r"do not fit adopted.add"):
        manager.submit_many([*asked, Submit("adopted.add", [1])])
    with pytest.raises(TaskRejected, match="cannot be submitted"):
        manager.submit_many([*asked, Submit("adopted.add", [1, object()])])
    with Redis.from_url(settings.broker_url.get_secret_value()) as client:
        assert client.llen("celery") == 0


def received(settings: Settings) -> tuple[Any, Any]:
    """The message that lies in the broker: its body and kombu's view of it."""
    seen: list[tuple[Any, Any]] = []
    with Connection(settings.broker_url.get_secret_value()) as connection:
        consumer = connection.Consumer([Queue("celery")], accept=["json"])
        consumer.register_callback(lambda body, message: seen.append((body, message)))
        with consumer:
            connection.drain_events(timeout=10)
        [(body, message)] = seen
        message.ack()
    return body, message


@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS)
def test_stock_kombu_reads_what_was_put_in_one_step(
    manager: TaskManager, settings: Settings, args: list[Any], kwargs: dict[str, Any]
) -> None:
    task = manager.app.tasks["adopted.add"]
    run = manager._make(task, Submit(task.name, args, kwargs))
    with manager.app.producer_or_acquire() as producer:
        publishing.put(producer, [run.message or ""])
    body, message = received(settings)
    assert body[0] == args and body[1] == kwargs
    assert message.headers["id"] == run.id and message.properties["correlation_id"] == run.id


@pytest.mark.parametrize("options", [{}, {"priority": 7}, {"headers": {"own": "é"}}])
@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS)
def test_the_short_way_to_the_broker_says_what_kombu_says(
    manager: TaskManager,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    args: list[Any],
    kwargs: dict[str, Any],
    options: dict[str, Any],
) -> None:
    task = manager.app.tasks["adopted.add"]
    ways = []
    for short in (True, False):
        if not short:
            monkeypatch.setattr(submission, "_is_plain", lambda _: False)
        task.apply_async(args, kwargs, task_id="same", **options)
        body, message = received(settings)
        message.headers["ironbeat"].pop("created_at")
        message.properties.pop("delivery_tag")
        ways.append((body, message.headers, message.properties, message.content_type))
    assert ways[0] == ways[1]


@pytest.mark.parametrize(
    "options",
    [{"serializer": "yaml"}, {"compression": "zlib"}, {"expiration": 60}, {"app_id": "x"}],
)
def test_what_the_ledgers_form_does_not_say_goes_kombus_way(
    manager: TaskManager, settings: Settings, monkeypatch: pytest.MonkeyPatch, options: Any
) -> None:
    def refuse(*_: Any) -> bool:
        raise AssertionError("the short way")

    monkeypatch.setattr(publishing, "put_one", refuse)
    manager.app.tasks["adopted.add"].apply_async([1, 2], **options)
    with Connection(settings.broker_url.get_secret_value()) as connection:
        assert connection.default_channel.queue_declare("celery", passive=True).message_count == 1
