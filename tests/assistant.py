"""An assistant on a real database, with the channels' APIs played, and short words to use both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
from starlette.testclient import TestClient

from ironbeat.workloads.assistant import accounts
from ironbeat.workloads.assistant.trial.apis import ChannelApis
from ironbeat.workloads.assistant.trial.senders import App, Webhook, trial_app

#: The four channels, WeChat in both modes.
KINDS = ("telegram", "dingtalk", "wechat", "wechat-plain", "wecom")


def install(kind: str, api: str, *, name: str = "app", **options: Any) -> App:
    """An app of that kind, known to its channel and to the assistant as ``KIND-NAME``."""
    channel, _, plain = kind.partition("-")
    app = trial_app(channel, api, plain=bool(plain))
    app = App(channel, f"{kind}-{name}", app.secrets, api, {**app.options, **options})
    accounts.save(app.channel, app.app_id, app.secrets, app.options)
    return app


class Assistant:
    """What a test asks of the assistant: posts to its webhooks, rows of its tables."""

    def __init__(self, client: TestClient, url: str, apis: ChannelApis) -> None:
        self.client = client
        self.apis = apis
        self._connection = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def post(self, webhook: Webhook) -> httpx.Response:
        return self.client.post(
            webhook.path,
            params=dict(webhook.query),
            headers=dict(webhook.headers),
            content=webhook.body,
        )

    def say(self, app: App, text: str, /, **more: Any) -> str | None:
        """Post a message, and return what the response says to the chat."""
        response = self.post(app.message(text, **more))
        assert response.status_code == 200, response.text
        return app.read(response.content)

    def rows(self, query: str, *values: Any) -> list[Any]:
        """All rows; each of one column as its bare value."""
        cursor = self._connection.execute(query, values)  # type: ignore[arg-type]
        if cursor.description is None:
            return []
        return [row[0] if len(row) == 1 else row for row in cursor.fetchall()]

    def value(self, query: str, *values: Any) -> Any:
        (found,) = self.rows(query, *values)
        return found

    def empty(self) -> None:
        """Remove every message and every answer; what the apps and tools are stays."""
        self.rows(
            "TRUNCATE assistant.conversations, assistant.messages, assistant.answers,"
            " assistant.users, assistant.tool_runs, assistant.used_nonces, assistant.access_tokens"
        )
        accounts.forget()
        with self.apis._lock:
            self.apis.said.clear()
            self.apis._troubles.clear()
            self.apis.tokens_issued.clear()
            self.apis.limits.clear()
        self.apis.token_seconds = 7200

    def stored(self) -> tuple[int, int, int]:
        """How many users, conversations and messages there are."""
        return self.rows(
            "SELECT (SELECT count(*) FROM assistant.users),"
            " (SELECT count(*) FROM assistant.conversations),"
            " (SELECT count(*) FROM assistant.messages)"
        )[0]

    def states(self) -> dict[str, int]:
        """How many answers stand in each state."""
        return dict(self.rows("SELECT state, count(*) FROM assistant.answers GROUP BY state"))


def until(holds: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until something holds, and return it; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return found
