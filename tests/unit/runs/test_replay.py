"""What a replayed run carries over from the old one, and what it leaves behind."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ironbeat.runs.model import Run
from ironbeat.runs.replay import NotReplayable, again

NOW = datetime(2026, 5, 1, tzinfo=UTC)
MESSAGE: dict[str, Any] = {
    "body": [[7], {"a": 1}, {"callbacks": None, "chain": [{"task": "next"}], "chord": {"x": 1}}],
    "headers": {
        "id": "old",
        "task": "shop.close",
        "root_id": "first",
        "parent_id": "before",
        "retries": 3,
        "replaced_task_nesting": 1,
        "eta": "2026-04-01T00:00:00+00:00",
        "expires": "2026-04-01T00:10:00+00:00",
        "group": "g",
        "group_index": 2,
        "own": "kept",
        "ironbeat": {"created_at": "2026-04-01T00:00:00+00:00", "durable": False, "workload": "w"},
    },
    "properties": {"correlation_id": "old", "reply_to": "", "priority": 6, "expiration": "5"},
    "exchange": "",
    "routing_key": "slow",
}


def run(**more: Any) -> Run:
    empty = {field.name: None for field in fields(Run)}
    return Run(
        **empty
        | {
            "id": "old",
            "task": "shop.close",
            "workload": "w",
            "queue": "slow",
            "priority": 6,
            "state": "failed",
            "schedule_name": "nightly",
            "message": MESSAGE,
            "created_at": NOW,
        }
        | more
    )


def test_it_begins_anew_with_the_same_arguments() -> None:
    made = again(run(), id="new", now=NOW)
    assert (made.id, made.parent_id, made.root_id, made.durable) == ("new", "old", "new", True)
    assert (made.task, made.queue, made.priority, made.retries) == ("shop.close", "slow", 6, 0)
    assert made.message is not None
    message = json.loads(made.message)
    assert message["body"][:2] == [[7], {"a": 1}]
    assert message["routing_key"] == "slow"
    assert message["properties"] == {"correlation_id": "new", "reply_to": "", "priority": 6}
    headers = message["headers"]
    assert headers["ironbeat"] == {
        "created_at": NOW.isoformat(),
        "durable": True,
        "workload": "w",
    }
    assert (headers["id"], headers["retries"], headers["own"]) == ("new", 0, "kept")
    assert (headers["eta"], headers["expires"]) == (None, None)


def test_what_follows_in_a_chain_follows_again_but_no_chord_counts_it_twice() -> None:
    made = again(run(), id="new", now=NOW)
    message = json.loads(made.message or "")
    assert message["body"][2]["chain"] == [{"task": "next"}]
    assert message["body"][2]["chord"] is None
    assert (message["headers"]["group"], made.group_id) == (None, None)


def test_the_old_message_is_left_as_it_was() -> None:
    before = json.dumps(MESSAGE)
    again(run(), id="new", now=NOW)
    assert json.dumps(MESSAGE) == before


@pytest.mark.parametrize("state", ["failed", "dead", "expired", "cancelled"])
def test_whatever_ended_without_success_can_be_replayed(state: str) -> None:
    assert again(run(state=state), id="new").id == "new"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"state": "running"}, "has not ended"),
        ({"state": "retrying"}, "has not ended"),
        ({"state": "succeeded"}, "succeeded"),
        ({"message": None}, "ironbeat schedule run nightly"),
        ({"message": None, "schedule_name": None}, "submit the task anew"),
    ],
)
def test_what_cannot_be_replayed_says_why(given: dict[str, Any], why: str) -> None:
    with pytest.raises(NotReplayable, match=why):
        again(run(**given), id="new")
    assert again(replace(run(), state="succeeded"), id="new", succeeded_too=True).id == "new"
