"""What the assistant declares is what its owners call by name."""

from __future__ import annotations

import importlib
import inspect

import pytest
from celery import current_app

from ironbeat import load_queries
from ironbeat.workload import discover
from ironbeat.workloads.assistant import accounts
from ironbeat.workloads.assistant.channels import CHANNELS

# Task -> its parameters, retries and delay, as the owners have them.
OWNERS = {
    "process_message_async": (("message_data", "user_id"), 3, 60),
    "execute_tool_async": (("tool_name", "user_id", "parameters", "message_id"), 2, None),
    "cleanup_expired_conversations": ((), 3, None),
    "cleanup_old_logs": ((), 3, None),
    "refresh_access_token": (("channel", "app_id"), 3, None),
}


@pytest.fixture(scope="module")
def registered() -> dict[str, object]:
    (workload,) = discover(["assistant"])
    for module in workload.tasks:
        importlib.import_module(module)
    return dict(current_app.tasks)


@pytest.mark.parametrize("name", OWNERS)
def test_tasks_are_those_of_the_owners(registered: dict[str, object], name: str) -> None:
    task = registered[name]
    parameters, retries, delay = OWNERS[name]
    assert tuple(inspect.signature(task.run).parameters) == parameters  # type: ignore[attr-defined]
    assert task.max_retries == retries  # type: ignore[attr-defined]
    assert delay is None or task.default_retry_delay == delay  # type: ignore[attr-defined]


def test_a_chats_words_are_sealed_in_broker_and_ledger(registered: dict[str, object]) -> None:
    assert registered["process_message_async"].sensitive == ("message_data",)  # type: ignore[attr-defined]


def test_schedules_are_those_of_the_owners() -> None:
    (workload,) = discover(["assistant"])
    declared = {spec.name: (spec.cadence(), spec.task) for spec in workload.schedules}
    assert declared["cleanup-expired-conversations"] == (
        ("cron", "0 * * * *"),
        "cleanup_expired_conversations",
    )
    assert declared["cleanup-old-logs"] == (("cron", "0 2 * * *"), "cleanup_old_logs")
    assert declared["refresh-access-token"][1] == "refresh_access_token"


def test_every_schedule_has_its_task(registered: dict[str, object]) -> None:
    (workload,) = discover(["assistant"])
    assert {spec.task for spec in workload.schedules} <= set(registered)
    assert set(workload.task_routes) <= set(registered)
    assert set(workload.task_routes.values()) == {queue.name for queue in workload.queues}


@pytest.mark.parametrize("filename", ["queries.sql", "sample.sql"])
def test_every_query_says_what_it_does(filename: str) -> None:
    for name, text in load_queries("ironbeat.workloads.assistant", filename).items():
        heading = text.splitlines()[0]
        assert len(heading.removeprefix(f"-- {name}: ")) > 5, name


def test_a_holds_time_is_longer_than_any_step() -> None:
    from ironbeat.workloads.assistant import delivery, endpoint, tokens, tools, turns
    from ironbeat.workloads.assistant.channels import calls

    call = calls.CONNECT_SECONDS + calls.CALL_SECONDS
    assert call < delivery.SENDING_SECONDS
    # A model's rounds, its last piece, or the last tool and the built-in responder's own after it;
    # fetching a token; then the sending.
    handling = endpoint.ALL_SECONDS + endpoint.PIECE_SECONDS + tools.MOST_SECONDS
    assert handling + tokens.REFRESH_SECONDS + 2 * call < turns.HOLD_SECONDS


def test_channels_say_what_their_accounts_need() -> None:
    assert list(CHANNELS) == ["wechat", "wecom", "dingtalk", "telegram"]
    for channel in CHANNELS.values():
        assert channel.required and all(channel.required.values())
        assert channel.unknown_fate in ("resend", "leave")
    assert all(accounts.OPTIONS.values())
