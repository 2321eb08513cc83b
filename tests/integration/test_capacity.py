"""More than usual: caps that submitters hear of, and a broker that is not filled up."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
import redis
from celery import chain
from tests.hazards import application, crew, ended
from tests.processes import wait_for

from ironbeat import QueueFull, Settings, TaskManager, get_settings
from ironbeat.dispatch.manager import Submit
from ironbeat.embedded import temporary_redis
from ironbeat.execution.deliveries import DEFAULT_LAYOUT
from ironbeat.runs.outbox import Outbox


@pytest.fixture
def hazards(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    yield from _application(tmp_path, monkeypatch)


def _application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    get_settings.cache_clear()
    module = application(monkeypatch, tmp_path / "traces")
    yield module
    module.app.ironbeat.recorder.close(timeout=2)


def length(settings: Settings, queue: str = "celery") -> int:
    with redis.Redis.from_url(settings.broker_url.get_secret_value()) as client:
        return sum(client.llen(DEFAULT_LAYOUT.list_key(queue, s)) for s in (0, 3, 6, 9))


def counted(settings: Settings, condition: str) -> int:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        sql = f"SELECT count(*) FROM ironbeat.runs WHERE {condition}"
        return connection.execute(sql).fetchone()[0]


# -- caps


@pytest.fixture
def capped(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    monkeypatch.setenv("IRONBEAT_QUEUE_LIMITS", "celery=10")
    yield from _application(tmp_path, monkeypatch)


def test_a_full_queue_refuses_every_way_in_and_says_so(
    capped: ModuleType, settings: Settings
) -> None:
    manager = TaskManager(capped.app)
    for n in range(5):
        manager.submit("hazards.quick", [f"{n}"])
        capped.quick.delay(f"{n}")
    assert length(settings) == 10
    with pytest.raises(QueueFull, match=r"queue 'celery' is full: 10 runs wait, 10 may"):
        manager.submit("hazards.quick", ["x"])
    with pytest.raises(QueueFull):
        capped.quick.delay("x")
    with pytest.raises(QueueFull):
        manager.submit("hazards.quick", ["x"], idempotency_key="k")
    assert length(settings) == 10
    wait_for(lambda: counted(settings, "true") == 10)

    with redis.Redis.from_url(settings.broker_url.get_secret_value()) as client:
        client.rpop("celery", 4)
    for n in range(4):
        manager.submit("hazards.quick", [f"again {n}"])
    with pytest.raises(QueueFull):
        capped.quick.delay("x")


def test_a_batch_is_taken_whole_or_not_at_all(capped: ModuleType, settings: Settings) -> None:
    manager = TaskManager(capped.app)
    asked = [Submit("hazards.quick", [f"{n}"]) for n in range(12)]
    with pytest.raises(QueueFull) as refused:
        manager.submit_many(asked, batch=4)
    assert len(refused.value.submitted) == 8
    assert length(settings) == counted(settings, "true") == 8


def test_what_waits_in_the_ledger_counts(capped: ModuleType, settings: Settings) -> None:
    manager = TaskManager(capped.app)
    capped.app.ironbeat.submission.breaker.trip()
    for n in range(10):
        manager.submit("hazards.quick", [f"{n}"])
    assert length(settings) == 0
    with pytest.raises(QueueFull):
        manager.submit("hazards.quick", ["x"])


def test_without_a_broker_the_ledger_is_counted(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRONBEAT_QUEUE_LIMITS", "celery=3")
    monkeypatch.setenv("USE_REDIS", "false")
    for module in _application(tmp_path, monkeypatch):
        manager = TaskManager(module.app)
        manager.submit_many([Submit("hazards.quick", [f"{n}"]) for n in range(3)])
        with pytest.raises(QueueFull):
            module.quick.delay("x")


def test_what_goes_on_is_no_new_submission(
    hazards: ModuleType, settings: Settings, tmp_path: Path
) -> None:
    """In a worker whose queue is full all the time, chains end; a task that submits is refused."""
    ids = [
        chain(hazards.quick.si(f"{n}-1"), hazards.quick.si(f"{n}-2")).apply_async().id
        for n in range(4)
    ]
    refused = hazards.submits.apply_async(("more",), ignore_result=False)
    for _ in range(5):
        hazards.nap.delay(0.01)
    with crew(tmp_path, tmp_path / "traces", IRONBEAT_QUEUE_LIMITS="celery=1") as workers:
        workers.start("w0")
        ledger = hazards.app.ironbeat.ledger
        for id in ids:
            assert ended(workers, ledger, id).state == "succeeded"
        assert ended(workers, ledger, refused.id).result == "full"
        assert workers.count("full") == 1


# -- marks


def _measured(create: Any, sizes: list[int], runs: Any, **options: Any) -> Any:
    sizes.append(sum(len(run.message) for run in runs))
    return create(runs, **options)


def test_the_broker_holds_so_many_and_the_ledger_the_rest(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRONBEAT_BROKER_BACKLOG", "100")
    for module in _application(tmp_path, monkeypatch):
        manager = TaskManager(module.app)
        ids = manager.submit_many((Submit("hazards.quick", [f"{n}"]) for n in range(500)), batch=20)
        plain = [module.quick.delay(f"p{n}").id for n in range(20)]
        assert len(set(ids + plain)) == 520
        wait_for(lambda: counted(settings, "true") == 520)
        assert 0 < length(settings) <= 60
        waiting = counted(settings, "publish_at IS NOT NULL")
        assert length(settings) + waiting == 520

        platform = module.app.ironbeat
        outbox = Outbox(platform.ledger, platform.publish, platform.capacity.room)
        taken: list[bytes] = []
        with (
            redis.Redis.from_url(settings.broker_url.get_secret_value()) as client,
            psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as database,
        ):
            while counted(settings, "publish_at IS NOT NULL"):
                # Their submitter's own time is over.
                database.execute("UPDATE ironbeat.runs SET publish_at = now()"
                                 " WHERE publish_at IS NOT NULL")  # fmt: skip
                while outbox.sweep():
                    pass
                assert length(settings) <= 100
                taken += client.rpop("celery", 100) or []
            taken += client.rpop("celery", 1000) or []
        assert len(taken) == 520, "each was published once"


def test_a_full_queue_keeps_no_other_back(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRONBEAT_BROKER_BACKLOG", "50")
    for module in _application(tmp_path, monkeypatch):
        module.app.amqp.queues.add("other")
        platform = module.app.ironbeat
        platform.submission.breaker.trip()
        manager = TaskManager(module.app)
        manager.submit_many(Submit("hazards.quick", [f"{n}"]) for n in range(200))
        manager.submit_many(Submit("hazards.quick", [f"{n}"], queue="other") for n in range(10))
        with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as database:
            database.execute("UPDATE ironbeat.runs SET publish_at = created_at")
        outbox = Outbox(platform.ledger, platform.publish, platform.capacity.room)
        while outbox.sweep():
            pass
        assert (length(settings), length(settings, "other")) == (50, 10)


def test_arguments_of_a_megabyte_fill_neither_the_broker_nor_a_batch(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_redis() as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory", 40 * 2**20)
        monkeypatch.setenv("IRONBEAT_BROKER_URL", server.url)
        for module in _application(tmp_path, monkeypatch):
            platform = module.app.ironbeat
            create, sizes = platform.ledger.create, []
            monkeypatch.setattr(platform.ledger, "create", partial(_measured, create, sizes))
            manager = TaskManager(module.app)
            payload = "x" * 1_000_000
            ids = manager.submit_many(Submit("hazards.quick", [f"{n}", payload]) for n in range(60))
            assert len(ids) == 60 == counted(settings, "true")
            assert max(sizes) < 10 * 2**20, "a commit holds a bounded number of bytes"
            for n in range(10):
                module.quick.delay(f"p{n}", payload)
            with redis.Redis.from_url(server.url) as client:
                assert client.info("memory")["used_memory"] < 0.85 * 40 * 2**20
                assert client.llen("celery") > 3
            with psycopg.connect(
                settings.database_url.get_secret_value(), autocommit=True
            ) as database:
                database.execute("UPDATE ironbeat.runs SET publish_at = now()"
                                 " WHERE publish_at IS NOT NULL")  # fmt: skip
            due = platform.ledger.take_due(limit=500, hold=5, most_bytes=8 * 2**20)
            assert 1 <= len(due) <= 9, "a sweep, too"
