"""A served API for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.api_server import Served


@pytest.fixture(scope="module")
def served(
    module_database_url: str, redis_server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    redis_url = redis_server.url.rsplit("/", 1)[0]
    server = Served(
        tmp_path_factory.mktemp("api"),
        {
            "IRONBEAT_DATABASE_URL": module_database_url,
            "IRONBEAT_BROKER_URL": f"{redis_url}/5",
            "IRONBEAT_RESULT_BACKEND": f"{redis_url}/6",
            "IRONBEAT_API_MAX_BODY_BYTES": "100000",
            "IRONBEAT_API_TIMEOUT": "3",
        },
    )
    try:
        yield server.wait()
    finally:
        server.stop()
