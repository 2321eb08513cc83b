"""The short way of plain messages: a task cannot tell it from Celery's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from workers import Fleet, wait_for

from ironbeat.embedded import ServerProcess

SHORT, CELERYS = "came-PlainRequest", "came-Request"


@pytest.fixture(scope="module")
def crew(redis_server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A worker that all of these tests share."""
    base = redis_server.url.rsplit("/", 1)[0]
    fleet = Fleet(f"{base}/5", tmp_path_factory.mktemp("crew"), backend=f"{base}/6")
    fleet.start()
    # Celery's way takes the first message of each task.
    for name in ("look", "nap"):
        fleet.send(name, "first", *([0] if name == "nap" else [])).get(timeout=20)
    yield fleet
    fleet.close()


def looked(crew: Fleet, id: str, way: str, **options: Any) -> dict[str, Any]:
    found = crew.send("look", id, **options).get(timeout=20)
    assert id in crew.ids(way), crew.output()
    return dict(found)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"headers": {"tenant": "north", "trace": {"a": [1]}}},
        {"kwargs": {"colour": "red"}, "priority": 3, "retries": 2},
        {"time_limit": 90, "soft_time_limit": 60},
        {"group_id": "g", "parent_id": "p", "root_id": "r"},
    ],
    ids=["bare", "headers", "arguments", "limits", "family"],
)
def test_a_task_finds_the_same_on_its_request(
    crew: Fleet, request: pytest.FixtureRequest, options: dict[str, Any]
) -> None:
    name = request.node.callspec.id
    short = looked(crew, f"{name}-a", SHORT, task_id=f"{name}-short", **options)
    celerys = looked(crew, f"{name}-b", CELERYS, task_id=f"{name}-long", expires=3600, **options)
    for each in ("id", "root_id", "correlation_id", "expires", "args"):
        one, other = short.pop(each), celerys.pop(each)
        assert (one is None) == (other is None) or each == "expires"
    assert short == celerys


def test_what_is_not_plain_goes_celerys_way(crew: Fleet) -> None:
    looked(crew, "later", CELERYS, countdown=0.3)
    # Cancelled before it comes: whichever way, it does not run.
    crew.app.control.revoke("revoked", reply=False)
    wait_for(lambda: "revoked" in str(crew.app.control.inspect(timeout=2).revoked()))
    crew.send("look", "revoked", task_id="revoked")
    looked(crew, "after", SHORT)
    assert "revoked" not in crew.ids(SHORT) + crew.ids(CELERYS)


def test_a_rate_limit_that_comes_later_holds(crew: Fleet) -> None:
    looked(crew, "free", SHORT)
    crew.app.control.rate_limit("worker_app.look", "600/m", reply=True, timeout=2)
    try:
        looked(crew, "limited", CELERYS)
    finally:
        crew.app.control.rate_limit("worker_app.look", None, reply=True, timeout=2)


def test_the_message_s_own_time_limit_holds(crew: Fleet) -> None:
    result = crew.send("nap", "overtime", 20, soft_time_limit=0.5, time_limit=15)
    with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
        result.get(timeout=20)
    assert crew.ids("SoftTimeLimitExceeded") == ["overtime"]


def test_an_old_message_and_a_wrong_one_are_answered_as_by_celery(crew: Fleet) -> None:
    old = {"task": "worker_app.look", "id": "old", "args": ["old"], "kwargs": {}}
    wrong = {"task": "worker_app.look", "id": "wrong"}
    with crew.app.connection_for_write() as connection:
        producer = connection.Producer(serializer="json", routing_key="default")
        producer.publish(old)
        producer.publish({"not": "arguments"}, headers=wrong)
        producer.publish([[], {}], headers=wrong)
    wait_for(lambda: "old" in crew.ids(CELERYS), hint=crew.output)
    looked(crew, "still there", SHORT)
    assert "wrong" not in crew.ids(SHORT) + crew.ids(CELERYS)
