"""An empty broker for each test, and a process that consumes under a lease of its own."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import celery
import pytest
import redis
from consumers import application

from ironbeat.execution import custody


@pytest.fixture
def broker(redis_url: str) -> str:
    """The URL of an empty broker."""
    return f"{redis_url}/1"


@pytest.fixture
def client(broker: str) -> Iterator[redis.Redis]:
    """A plain client of the broker."""
    with redis.Redis.from_url(broker) as client:
        yield client


@pytest.fixture(autouse=True)
def consumption(monkeypatch: pytest.MonkeyPatch) -> custody.Consumption:
    """How this process consumes, fresh for each test."""
    fresh = custody.Consumption(lease=uuid4().hex)
    for name, value in vars(fresh).items():
        monkeypatch.setattr(custody.consumption, name, value)
    monkeypatch.setattr(custody, "_custodies", {})
    return custody.consumption


@pytest.fixture
def app(broker: str) -> celery.Celery:
    """An application with our transport."""
    return application(broker)


@pytest.fixture
def stock(broker: str) -> celery.Celery:
    """An application with kombu's transport."""
    return application(broker, ours=False)
