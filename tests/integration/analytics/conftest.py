"""Empty tables of chat messages for each test, in a database that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from tests.chats import Chats

from ironbeat.settings import Settings


@pytest.fixture
def chats(module_settings: Settings) -> Iterator[Chats]:
    opened = Chats(module_settings.database_url.get_secret_value())
    opened.empty()
    with redis.Redis.from_url(module_settings.result_backend.get_secret_value()) as client:
        client.flushdb()
    yield opened
    opened.close()
