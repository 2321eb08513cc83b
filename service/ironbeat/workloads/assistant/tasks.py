"""The assistant's tasks, under the names by which its owners call them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy.exc
import structlog
from celery import shared_task

from ironbeat import TaskManager, connection, report_progress
from ironbeat.workloads.assistant import accounts, delivery, reception, tokens
from ironbeat.workloads.assistant.channels import CHANNELS
from ironbeat.workloads.assistant.channels.contract import Undelivered
from ironbeat.workloads.assistant.channels.xml_messages import WINDOW_SECONDS
from ironbeat.workloads.assistant.handler import handler
from ironbeat.workloads.assistant.incoming import Incoming
from ironbeat.workloads.assistant.language import say
from ironbeat.workloads.assistant.store import fetch, fetch_all
from ironbeat.workloads.assistant.tools import ToolBroken, ToolUser, registered, run_tool
from ironbeat.workloads.assistant.turns import Report, Turn

log = structlog.get_logger()

INACTIVE_DAYS = 30
TOOL_LOG_DAYS = 90
BATCH_ROWS = 1000
# Nobody waits for these; the next run goes on with what is left.
BUDGET_SECONDS = 300.0
# A conversation in which nothing happened for so long although there is something to do.
STALLED_SECONDS = 45.0
STALLED_BATCH = 500
# A chat is told of progress at most so often.
PROGRESS_SECONDS = 3.0

_DATABASE_ERRORS = (
    psycopg.OperationalError,
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.TimeoutError,
)
_RETRIED: dict[str, Any] = {
    "autoretry_for": _DATABASE_ERRORS,
    "max_retries": 3,
    "retry_backoff": 2,
    "retry_backoff_max": 20,
    "retry_jitter": True,
}


@shared_task(
    name="process_message_async",
    bind=True,
    max_retries=3,
    default_retry_delay=60,
    sensitive=("message_data",),
)
def process_message_async(self: Any, message_data: dict[str, Any], user_id: int) -> dict[str, Any]:
    """Answer a stored message, and whatever else waits in its conversation, in order.

    ``message_data`` has ``message_id, channel, external_user_id, content, timestamp, message_type,
    conversation_id, raw_data``; a message that is not stored yet is stored first. The result says
    how many messages were handled and answers sent; ``held``: whoever holds the conversation
    answers this one too. Tried again three times, a minute apart.
    """
    try:
        return _go_on(self, _conversation_of(message_data, user_id))
    except _DATABASE_ERRORS as error:
        raise self.retry(exc=error) from error


@shared_task(name="resume_conversation", bind=True, max_retries=3, default_retry_delay=60)
def resume_conversation(self: Any, conversation_id: int) -> dict[str, Any]:
    """Go on with a conversation that waited: for its channel, for a tool, or for anybody at all."""
    try:
        return _go_on(self, conversation_id)
    except _DATABASE_ERRORS as error:
        raise self.retry(exc=error) from error


def _go_on(task: Any, conversation_id: int) -> dict[str, Any]:
    # The same run may go on at once with what its first attempt held: the guard lets only one live.
    report = Turn(conversation_id, f"run:{task.request.id}", handler().handle).take()
    if report.outcome == "failed":
        raise task.retry(exc=report.error, countdown=report.wait)
    reception.hand_on(conversation_id, report)
    return _counts(report)


def _counts(report: Report) -> dict[str, Any]:
    return {"outcome": report.outcome, "handled": report.handled, "sent": report.sent}


def _conversation_of(message_data: Mapping[str, Any], user_id: int) -> int:
    with connection() as opened:
        user = fetch(opened, "user", id=user_id)
        if user is None:
            raise LookupError(f"there is no user {user_id}")
        named = {
            "account_id": user["account_id"],
            "message_id": str(message_data["message_id"]),
        }
        found = fetch(opened, "message_named", **named)
        if found is None:
            _store(message_data, user)
            found = fetch(opened, "message_named", **named)
    if found is None:
        raise LookupError(f"message {message_data['message_id']} cannot be stored")
    return int(found["conversation_id"])


def _store(message_data: Mapping[str, Any], user: Mapping[str, Any]) -> None:
    """A message that somebody submitted without the webhook: of a user who is known."""
    account = accounts.get(user["account_id"])
    with connection() as opened:
        conversation = fetch(opened, "conversation", id=message_data["conversation_id"])
    if conversation is None or conversation["account_id"] != account.id:
        raise LookupError(
            f"user {user['id']} has no conversation {message_data['conversation_id']}"
        )
    reception.store(
        account,
        Incoming(
            message_id=str(message_data["message_id"]),
            conversation_id=conversation["external_id"],
            user_id=user["external_id"],
            content=str(message_data["content"]),
            message_type=str(message_data["message_type"]),
            sent_at=datetime.fromisoformat(str(message_data["timestamp"])),
            reply_to=conversation["reply_to"],
            raw_data=message_data.get("raw_data") or {},
        ),
    )


@shared_task(
    name="execute_tool_async",
    bind=True,
    max_retries=2,
    default_retry_delay=10,
    soft_time_limit=1800,
    time_limit=1860,
)
def execute_tool_async(
    self: Any,
    tool_name: str,
    user_id: int,
    parameters: dict[str, Any],
    message_id: int | None = None,
) -> dict[str, Any]:
    """Run a tool for a user; with ``message_id`` its progress and result go into that chat.

    Returns ``{tool, state, output, error}``. A tool that met something that passes is run again,
    twice at most. Raises :class:`LookupError` for an unknown tool or user.
    """
    with connection() as opened:
        user = fetch(opened, "user", id=user_id)
        asked = fetch(opened, "channel_of_message", id=message_id)
    if user is None:
        raise LookupError(f"there is no user {user_id}")
    if tool_name not in registered():
        raise LookupError(f"there is no tool {tool_name!r}; there are: {', '.join(registered())}")
    language = (asked and asked["language"]) or user["language"] or "en"
    chat = _Chat(message_id, self.request.id or "", language, tool_name)
    try:
        result = run_tool(
            tool_name,
            ToolUser(user_id, tuple(user["permissions"]), language),
            parameters,
            message_id=message_id,
            run_id=self.request.id,
            progress=chat.progress,
        )
    except ToolBroken as error:
        if self.request.retries < self.max_retries:
            raise self.retry(exc=error) from error
        chat.say("result", 0, say("broken", language, name=tool_name))
        raise
    chat.say("result", 0, result.told(language))
    return {
        "tool": result.tool,
        "state": result.state,
        "output": result.output,
        "error": result.error,
    }


class _Chat:
    """Where a tool's progress and result are told."""

    def __init__(self, message_id: int | None, origin: str, language: str, tool: str) -> None:
        self._message_id = message_id
        self._origin = origin
        self._language = language
        self._tool = tool
        self._told_at = time.monotonic()

    def progress(self, percent: int, step: str) -> None:
        """Tell how far the tool is: always to the run, now and then to the chat."""
        report_progress(percent, step)
        if time.monotonic() - self._told_at < PROGRESS_SECONDS:
            return
        self._told_at = time.monotonic()
        values = {"name": self._tool, "percent": percent, "step": step}
        self.say("progress", percent, say("progress", self._language, **values))

    def say(self, kind: str, part: int, text: str) -> None:
        """Say something once, in its place in the conversation, and see that it goes out."""
        if self._message_id is None:
            return
        with connection() as opened:
            channel = fetch(opened, "channel_of_message", id=self._message_id)
            if channel is None:
                return
            longest = CHANNELS[channel["channel"]].longest_bytes
            for number, piece in enumerate(delivery.parts_of(text, longest)):
                fetch(
                    opened,
                    "say",
                    message_id=self._message_id,
                    kind=kind,
                    origin=self._origin,
                    part=1000 * part + number,
                    content=piece,
                )
        TaskManager().submit("resume_conversation", [channel["conversation_id"]])


class AlertNotDelivered(Exception):
    """A chat could not be told of an alert; the message says why."""


@shared_task(name="send_alert", bind=True, max_retries=20)
def send_alert(
    self: Any, channel: str, app_id: str, reply_to: dict[str, Any], text: str
) -> dict[str, Any]:
    """Tell a chat of an alert that the API could not deliver; tried again as the channel asks.

    Raises :class:`LookupError` for an app that is not there and :class:`AlertNotDelivered` when the
    channel refuses for good.
    """
    account = accounts.find(channel, app_id)
    if account is None:
        raise LookupError(f"there is no enabled app {app_id!r} of {channel}")
    number = self.request.retries + 1
    outcome = delivery.send(account, reply_to, delivery.Attempt(text, number))
    if outcome.state == "pending":
        raise self.retry(exc=AlertNotDelivered(outcome.error), countdown=outcome.wait)
    if outcome.state != "confirmed":
        raise AlertNotDelivered(outcome.error)
    return {"state": outcome.state, "attempts": number}


# -- schedules -------------------------------------------------------------------------------------


@shared_task(name="cleanup_expired_conversations", **_RETRIED)
def cleanup_expired_conversations() -> dict[str, Any]:
    """Remove conversations that were inactive for 30 days, with their messages and answers.

    Also what vouched for requests that nobody can come with any more. ``more``: time was spent
    before everything was done.
    """
    ends_at = time.monotonic() + BUDGET_SECONDS
    totals = {"conversations": 0, "messages": 0, "more": True}
    while time.monotonic() < ends_at:
        with connection() as opened:
            row = fetch(opened, "expire_conversations", days=INACTIVE_DAYS, batch=BATCH_ROWS) or {}
        totals["conversations"] += row["conversations"]
        totals["messages"] += row["messages"]
        if row["conversations"] < BATCH_ROWS:
            totals["more"] = False
            break
    # Twice the window: a request may be signed as far ahead as behind.
    _forget("forget_nonces", ends_at, seconds=2 * WINDOW_SECONDS)
    log.info("conversations expired", action="cleanup_expired_conversations", **totals)
    return totals


@shared_task(name="cleanup_old_logs", **_RETRIED)
def cleanup_old_logs() -> dict[str, Any]:
    """Remove the log of tool runs older than 90 days."""
    removed, more = _forget(
        "forget_tool_runs", time.monotonic() + BUDGET_SECONDS, days=TOOL_LOG_DAYS
    )
    log.info("old tool runs removed", action="cleanup_old_logs", removed=removed)
    return {"tool_runs": removed, "more": more}


def _forget(query: str, ends_at: float, **parameters: Any) -> tuple[int, bool]:
    removed = 0
    while time.monotonic() < ends_at:
        with connection() as opened:
            gone = len(fetch_all(opened, query, batch=BATCH_ROWS, **parameters))
        removed += gone
        if gone < BATCH_ROWS:
            return removed, False
    return removed, True


@shared_task(name="refresh_access_token", **_RETRIED)
def refresh_access_token(channel: str | None = None, app_id: str | None = None) -> dict[str, Any]:
    """Fetch the access token of an app, or of every app, if the present one is about to end.

    ``refreshed``: of whom; ``failed``: why not. An app whose token holds long enough, or which
    another process is just refreshing, is left alone. Raises :class:`LookupError` for an app that
    is not there.
    """
    found = [
        account
        for account in accounts.every()
        if account.enabled
        and channel in (None, account.channel)
        and app_id in (None, account.app_id)
    ]
    if not found and (channel or app_id):
        raise LookupError(f"there is no enabled app {channel or ''} {app_id or ''}")
    refreshed, failed = [], {}
    for account in found:
        if not CHANNELS[account.channel].needs_token(account, None):
            continue
        name = f"{account.channel} {account.app_id}"
        try:
            if tokens.refresh(account) is not None:
                refreshed.append(name)
        except Undelivered as error:
            failed[name] = str(error)
    if failed and not refreshed and len(failed) == len(found):
        raise RuntimeError("; ".join(f"{name}: {why}" for name, why in failed.items()))
    return {"refreshed": refreshed, "failed": failed}


@shared_task(name="resume_unanswered_messages", **_RETRIED)
def resume_unanswered_messages() -> dict[str, Any]:
    """See that somebody goes on where a killed process left a message or an answer lying."""
    with connection() as opened:
        rows = fetch_all(opened, "unanswered", older=STALLED_SECONDS, limit=STALLED_BATCH)
    manager = TaskManager()
    for row in rows:
        manager.submit("resume_conversation", [row["id"]])
    return {"resumed": len(rows), "more": len(rows) == STALLED_BATCH}
