from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection as the platform's own are: in autocommit mode."""
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened
