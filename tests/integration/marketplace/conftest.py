"""An empty marketplace for each test, in a database that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.marketplace import Market

from ironbeat.settings import Settings


@pytest.fixture
def market(module_settings: Settings) -> Iterator[Market]:
    opened = Market(module_settings.database_url.get_secret_value())
    opened.empty()
    yield opened
    opened.close()
