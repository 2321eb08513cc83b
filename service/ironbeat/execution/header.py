"""The header that every message of Ironbeat carries, and what is read from a message's headers.

``ironbeat`` = ``{"created_at": ISO 8601 UTC, "durable": bool, "workload": str, "schedule": name,
"scheduled_for": ISO 8601}``. ``created_at`` never changes for a run, through retries, replacements
and copies: it names the partition of the history in which the run's outcome is, or will be. What a
worker drew from the ledger has ``"drawn": true`` as long as it is in that worker's hands.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ironbeat.runs.guard import Key
from ironbeat.runs.model import Claim

NAME = "ironbeat"


def make(
    created_at: datetime,
    *,
    durable: bool = False,
    workload: str = "",
    schedule: str | None = None,
    scheduled_for: datetime | None = None,
) -> dict[str, Any]:
    """The header's value for a new run."""
    header: dict[str, Any] = {
        "created_at": created_at.astimezone(UTC).isoformat(),
        "durable": durable,
        "workload": workload,
    }
    if schedule is not None:
        header["schedule"] = schedule
        header["scheduled_for"] = scheduled_for.isoformat() if scheduled_for else None
    return header


def read(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The header's value in a message's headers; empty for another producer's message."""
    found = headers.get(NAME)
    return found if isinstance(found, dict) else {}


def instant(value: Any) -> datetime | None:
    """An ISO 8601 instant as a header carries it, or ``None`` for anything else."""
    if isinstance(value, datetime):
        found = value
    elif isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            return None
    else:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def key(headers: Mapping[str, Any]) -> Key:
    """What tells an attempt's message from a copy of another one."""
    return headers["id"], headers.get("retries") or 0, headers.get("replaced_task_nesting") or 0


def claim(headers: Mapping[str, Any], queue: str, priority: int | None) -> Claim:
    """The claim to execute the message with these headers."""
    own = read(headers)
    return Claim(
        id=headers["id"],
        task=headers["task"],
        created_at=instant(own.get("created_at")),
        queue=queue,
        workload=own.get("workload") or "",
        priority=priority,
        durable=bool(own.get("durable")),
        retries=headers.get("retries") or 0,
        replacements=headers.get("replaced_task_nesting") or 0,
        eta=instant(headers.get("eta")),
        expires_at=instant(headers.get("expires")),
        parent_id=headers.get("parent_id"),
        root_id=headers.get("root_id"),
        group_id=headers.get("group"),
        argsrepr=headers.get("argsrepr"),
        kwargsrepr=headers.get("kwargsrepr"),
    )
