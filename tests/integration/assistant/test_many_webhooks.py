"""A thousand webhooks, several real workers, and a broker that is killed among them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.assistant import Assistant, install, until
from tests.processes import worker

from ironbeat.api import create_api
from ironbeat.app import current_app
from ironbeat.embedded import ServerProcess, temporary_redis
from ironbeat.settings import Settings, get_settings
from ironbeat.workloads.assistant import reception
from ironbeat.workloads.assistant.trial.apis import ChannelApis
from ironbeat.workloads.assistant.trial.senders import App

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WEBHOOKS, USERS = 1000, 40
PER_SECOND = 60.0
SETTLED_SECONDS = 300


@pytest.fixture
def own_redis() -> Iterator[ServerProcess]:
    with temporary_redis(append_only=True) as server:
        yield server


@pytest.fixture
def assistant(
    settings: Settings, own_redis: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Assistant]:
    """An assistant in async mode on a broker of its own."""
    url = own_redis.url.rsplit("/", 1)[0]
    for name, value in {
        "IRONBEAT_BROKER_URL": f"{url}/1",
        "IRONBEAT_RESULT_BACKEND": f"{url}/2",
        "IRONBEAT_API_TOKEN": "t0ken-of-the-api",
        "IRONBEAT_WORKLOADS": "assistant",
        "AI_ASSISTANT_USE_ASYNC": "true",
    }.items():
        monkeypatch.setenv(name, value)
    for cached in (get_settings, current_app, reception._manager):
        cached.cache_clear()
    with ChannelApis() as apis, TestClient(create_api(get_settings())) as client:
        found = Assistant(client, settings.database_url.get_secret_value(), apis)
        yield found
        found.close()
    for cached in (get_settings, current_app, reception._manager):
        cached.cache_clear()


def _post_all(assistant: Assistant, app: App) -> None:
    """A thousand messages of forty users, each user's in order, at a steady rate."""
    began = time.monotonic()

    def post(user: int) -> None:
        for number in range(WEBHOOKS // USERS):
            due = began + (number * USERS + user) / PER_SECOND
            time.sleep(max(0.0, due - time.monotonic()))
            assistant.say(app, f"/{number}", user=str(1000 + user))

    with ThreadPoolExecutor(USERS) as users:
        for each in [users.submit(post, user) for user in range(USERS)]:
            each.result()


def _check(assistant: Assistant, app: App) -> None:
    until(lambda: assistant.states().get("confirmed") == WEBHOOKS, SETTLED_SECONDS)
    assert assistant.states() == {"confirmed": WEBHOOKS}
    assert assistant.stored() == (USERS, USERS, WEBHOOKS)
    twice = assistant.rows(
        "SELECT message_id FROM assistant.answers WHERE kind = 'answer' AND state = 'confirmed'"
        " GROUP BY message_id HAVING count(*) > 1"
    )
    assert twice == []
    # What the channel took is what was confirmed: nobody saw anything twice, or out of order.
    assert assistant.value("SELECT sum(unknown_fates) FROM assistant.answers") == 0
    for user in range(USERS):
        said = assistant.apis.texts(app.chat_of(str(1000 + user)))
        numbers = [int(text.split("/")[1].split(".")[0]) for text in said]
        assert numbers == list(range(WEBHOOKS // USERS))


def test_a_broker_killed_among_a_thousand_webhooks(
    assistant: Assistant, own_redis: ServerProcess, tmp_path: Path
) -> None:
    app = install("telegram", assistant.apis.url)
    with worker("ironbeat", tmp_path / "worker"):
        posting = threading.Thread(target=_post_all, args=(assistant, app))
        posting.start()
        until(lambda: assistant.stored()[2] > WEBHOOKS // 4)
        own_redis.kill()
        until(lambda: assistant.stored()[2] > WEBHOOKS // 2)
        own_redis.start()
        posting.join(SETTLED_SECONDS)
        assert not posting.is_alive()
        _check(assistant, app)


def test_eight_workers_keep_every_conversation_in_order(
    assistant: Assistant, tmp_path: Path
) -> None:
    app = install("telegram", assistant.apis.url)
    with ExitStack() as stack:
        for number in range(8):
            log = tmp_path / f"worker-{number}"
            stack.enter_context(worker("ironbeat", log, name=f"w{number}"))
        _post_all(assistant, app)
        _check(assistant, app)
        hosts = assistant.value(
            "SELECT count(DISTINCT worker) FROM ironbeat.run_history"
            " WHERE task = 'process_message_async'"
        )
        assert hosts > 1
