"""An assistant with an app of each kind, shared by the tests of a module and emptied for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from tests.assistant import KINDS, Assistant, install

from ironbeat.api import create_api
from ironbeat.app import current_app
from ironbeat.settings import Settings, get_settings
from ironbeat.watch.report import forget_workloads
from ironbeat.workloads.assistant import reception
from ironbeat.workloads.assistant.sample import load
from ironbeat.workloads.assistant.trial.apis import ChannelApis
from ironbeat.workloads.assistant.trial.senders import App


@pytest.fixture(scope="module")
def apis() -> Iterator[ChannelApis]:
    with ChannelApis() as played:
        yield played


@pytest.fixture(scope="module")
def apps(module_settings: Settings, apis: ChannelApis) -> dict[str, App]:
    load(scale=100, progress=lambda done, total: None)
    may = {"default_permissions": ["inventory.read"]}
    return {kind: install(kind, apis.url, **may) for kind in KINDS}


@pytest.fixture(scope="module")
def _client(module_settings: Settings, apps: dict[str, App]) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IRONBEAT_API_TOKEN", "t0ken-of-the-api")
        get_settings.cache_clear()
        current_app.cache_clear()
        reception._manager.cache_clear()
        # A module before this one may have looked when none was installed.
        forget_workloads()
        with TestClient(create_api(get_settings()), raise_server_exceptions=False) as client:
            yield client
    current_app.cache_clear()
    reception._manager.cache_clear()
    get_settings.cache_clear()


@pytest.fixture
def assistant(
    module_settings: Settings, _client: TestClient, apis: ChannelApis
) -> Iterator[Assistant]:
    found = Assistant(_client, module_settings.database_url.get_secret_value(), apis)
    found.empty()
    yield found
    found.close()


@pytest.fixture
def in_tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answer in tasks, as the setting says."""
    monkeypatch.setenv("AI_ASSISTANT_USE_ASYNC", "true")
    get_settings.cache_clear()
    yield
    monkeypatch.delenv("AI_ASSISTANT_USE_ASYNC")
    get_settings.cache_clear()


@pytest.fixture(params=KINDS)
def app(request: pytest.FixtureRequest, apps: dict[str, App]) -> App:
    """Each app in turn."""
    return apps[request.param]
