"""Alertmanager's webhook becomes a chat message: at once, or by a worker when that fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.assistant import Assistant, until
from tests.processes import worker

from ironbeat.settings import Settings, get_settings
from ironbeat.workloads.assistant import alerts
from ironbeat.workloads.assistant.trial.apis import Trouble
from ironbeat.workloads.assistant.trial.senders import App

TOKEN = "t0ken-for-alerts"


@pytest.fixture(autouse=True)
def _token(module_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("IRONBEAT_ALERTS_TOKEN", TOKEN)
    get_settings.cache_clear()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


def notification(*names: str, status: str = "firing") -> dict[str, Any]:
    """What Alertmanager posts, as its version 4 of the webhook has it."""
    return {
        "version": "4",
        "groupKey": '{}:{alertname="x"}',
        "status": status,
        "receiver": "operators",
        "groupLabels": {"alertname": names[0]},
        "externalURL": "http://127.0.0.1:9093",
        "alerts": [
            {
                "status": status,
                "labels": {"alertname": name, "severity": "critical"},
                "annotations": {
                    "summary": "No active worker",
                    "description": "Nothing is executed.",
                    "runbook": f"docs/runbooks/{name}.md",
                },
                "startsAt": "2026-11-27T03:04:05.678Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "fingerprint": f"{number:016x}",
            }
            for number, name in enumerate(names)
        ],
    }


def post(
    assistant: Assistant, app: App, body: Any, to: str | None = "1001", token: str | None = TOKEN
) -> Any:
    return assistant.client.post(
        f"/api/assistant/alerts/{app.channel}/{app.app_id}",
        params={} if to is None else {"to": to},
        content=body if isinstance(body, bytes) else json.dumps(body).encode(),
        headers={} if token is None else {"Authorization": f"Bearer {token}"},
    )


def runs(assistant: Assistant, since: Any) -> dict[str, int]:
    """How many runs of the task that were made since then stand in each state."""
    return dict(
        assistant.rows(
            "SELECT state, count(*) FROM (SELECT task, state, created_at FROM ironbeat.runs"
            " UNION ALL SELECT task, state, created_at FROM ironbeat.run_history) AS r"
            " WHERE task = 'send_alert' AND created_at >= %s GROUP BY state",
            since,
        )
    )


@pytest.fixture
def begin(assistant: Assistant) -> Any:
    """The database's time when a test begins."""
    return assistant.value("SELECT clock_timestamp()")


def test_a_chat_is_told_at_once_without_any_worker(
    assistant: Assistant, apps: dict[str, App], begin: Any
) -> None:
    for kind in ("telegram", "dingtalk", "wecom", "wechat"):
        to = None if kind == "dingtalk" and apps[kind].secrets.get("robot_token") else "1001"
        answer = post(assistant, apps[kind], notification("celery_worker_down"), to)
        assert answer.status_code == 200 and answer.json() == {"alerts": "sent"}, (
            kind,
            answer.text,
        )
    said = assistant.apis.texts()
    assert len(said) == 4
    for text in said:
        assert "critical: celery_worker_down" in text and "No active worker" in text
        assert "since 2026-11-27 03:04:05 UTC" in text
        assert "docs/runbooks/celery_worker_down.md" in text
    # The runs that would have seen to it are not needed.
    assert runs(assistant, begin) == {"cancelled": 4}


def test_its_end_is_told_and_many_alerts_are_counted(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    app = apps["telegram"]
    assert post(assistant, app, notification("no_tick", status="resolved")).status_code == 200
    names = [f"alert_{number}" for number in range(13)]
    assert post(assistant, app, notification(*names)).status_code == 200
    ended, many = assistant.apis.texts("1001")
    assert "ended: no_tick" in ended
    assert "alert_9" in many and "alert_10" not in many and "3 more" in many


def test_what_cannot_be_sent_at_once_a_worker_sends(
    assistant: Assistant,
    apps: dict[str, App],
    begin: Any,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alerts, "LATER_SECONDS", 1.0)
    assistant.apis.cause(Trouble("status", 503, seconds=1), Trouble("error", seconds=1))
    answer = post(assistant, apps["telegram"], notification("dead_letters"))
    assert answer.json() == {"alerts": "later"}
    assert assistant.apis.texts() == []
    with worker("ironbeat", tmp_path / "log", IRONBEAT_WORKLOADS="assistant"):
        until(lambda: assistant.apis.texts("1001"))
        until(lambda: runs(assistant, begin) == {"succeeded": 1})
    [said] = assistant.apis.texts("1001")
    assert "dead_letters" in said


def test_what_is_wrong_is_told_and_nothing_is_sent(
    assistant: Assistant, apps: dict[str, App], begin: Any
) -> None:
    app, good = apps["telegram"], notification("no_tick")
    assert post(assistant, app, good, token=None).status_code == 401
    assert post(assistant, app, good, token="t0ken-of-the-api").status_code == 401
    assert post(assistant, app, b"{").status_code == 400
    assert post(assistant, app, {"alerts": []}).status_code == 400
    assert post(assistant, app, {"alerts": [1]}).status_code == 400
    nobody = post(assistant, app, good, to=None)
    assert nobody.status_code == 400 and "?to=" in nobody.text
    stranger = App(app.channel, "nobody", app.secrets, app.api, app.options)
    assert post(assistant, stranger, good).status_code == 404
    assert post(assistant, app, b"[" + b" " * 300_000 + b"]").status_code == 413
    assert assistant.apis.texts() == [] and runs(assistant, begin) == {}
