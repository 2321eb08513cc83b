"""The pipeline of every channel: check and read, deduplicate, store, answer at once or hand over.

Which of the two is the setting ``ai_assistant_use_async`` alone; without a broker it is at once.
Handed over means: message and task are committed together, so a message that was acknowledged is
answered whatever dies next, and a message that was refused left nothing behind.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import uuid4

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ironbeat import Submit, TaskManager, connection, get_settings
from ironbeat.workloads.assistant import accounts, language
from ironbeat.workloads.assistant.accounts import Account
from ironbeat.workloads.assistant.channels import CHANNELS
from ironbeat.workloads.assistant.channels.contract import Reply
from ironbeat.workloads.assistant.handler import handler
from ironbeat.workloads.assistant.incoming import Incoming, Refusal, Request, forged
from ironbeat.workloads.assistant.intake import Entry, Intake
from ironbeat.workloads.assistant.store import Connection, fetch, sql
from ironbeat.workloads.assistant.turns import Report, Response, Turn

logger = logging.getLogger(__name__)

# A larger webhook is refused; the channels' own are a few kilobytes.
MOST_BYTES = 256 * 1024
# Requests that are answered at once and at the same time, in a process. More wait.
AT_ONCE = 64
# Messages that one transaction stores.
STORED_TOGETHER = 64
# How long a request goes on, without its caller, to see its message answered.
AFTERWARDS_SECONDS = 300.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that is to be stored; ``submit``: together with the task that answers it."""

    account: Account
    incoming: Incoming
    body: bytes
    submit: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A message that was stored just now."""

    id: int
    conversation_id: int
    user_id: int
    seq: int
    language: str


def challenge(channel: str, app_id: str, request: Request) -> Reply:
    """Answer the check by which a channel confirms a webhook's address. Raises :class:`Refusal`."""
    return CHANNELS[channel].challenge(_account(channel, app_id), request)


def receive(channel: str, app_id: str, request: Request) -> Reply:
    """Take a webhook's request. Raises :class:`Refusal`, with nothing stored."""
    if len(request.body) > MOST_BYTES:
        raise Refusal(413, f"a webhook may have {MOST_BYTES} bytes")
    account = _account(channel, app_id)
    incoming = CHANNELS[channel].read(account, request)
    if incoming is None:
        return CHANNELS[channel].respond(account, {}, None)
    later = answers_later()
    stored = store(account, incoming, request.body, submit=later)
    text = None
    if stored is not None:
        text = language.say("received", stored.language) if later else _answer(account, stored)
    return CHANNELS[channel].respond(account, incoming.reply_to, text)


def answers_later() -> bool:
    """Whether messages are answered in tasks: asked for, and there is a broker to carry them."""
    settings = get_settings()
    return settings.ai_assistant_use_async and settings.use_redis


def store(
    account: Account, incoming: Incoming, body: bytes = b"", *, submit: bool = False
) -> Stored | None:
    """Store a message with its user and conversation, once; ``None``: it was stored before.

    ``submit``: together with the task that answers it. Raises :class:`Refusal` for a nonce that
    came with another body before.
    """
    return _intake.put(Arrival(account, incoming, body, submit))


def _store_together(entries: Sequence[Entry[Arrival, Stored]]) -> None:
    """Store a batch. What cannot be stored in company is stored, or refused, by itself."""
    together, alone = _apart(entries)
    try:
        _store_all(together)
    except psycopg.errors.DeadlockDetected:
        alone = list(entries)
    except psycopg.OperationalError:
        # Without a server each would wait for its time-out.
        raise
    except Exception:
        alone = list(entries)
    for entry in alone:
        try:
            _store_all([entry])
        except Exception as error:
            entry.error = error


def _apart(
    entries: Sequence[Entry[Arrival, Stored]],
) -> tuple[list[Entry[Arrival, Stored]], list[Entry[Arrival, Stored]]]:
    """Those that can be stored together, and those that bring a message of these once more."""
    first: dict[tuple[int, str], Entry[Arrival, Stored]] = {}
    for entry in entries:
        first.setdefault((entry.asked.account.id, entry.asked.incoming.message_id), entry)
    together = list(first.values())
    return together, [entry for entry in entries if entry not in together]


def _store_all(entries: Sequence[Entry[Arrival, Stored]]) -> None:
    """Store these in one transaction; those that were stored before are left out of it."""
    new = list(entries)
    while new:
        with connection() as opened:
            try:
                runs = _write(opened, new)
            except _SeenBefore as seen:
                new = [entry for entry in new if entry not in seen.entries]
                continue
        _manager().publish(runs)
        return


class _SeenBefore(Exception):
    """Some of a batch were stored before: nothing of the batch is, for now.

    Nothing shall remain of a message that came again, not even its number in the conversation.
    """

    def __init__(self, entries: list[Entry[Arrival, Stored]]) -> None:
        super().__init__()
        self.entries = entries


def _write(opened: Connection, entries: Sequence[Entry[Arrival, Stored]]) -> Sequence[Any]:
    """Commit messages, and the runs that answer them, which are returned to be published."""
    with opened.transaction():
        for entry in entries:
            _use_nonce(opened, entry.asked)
        rows = _receive(opened, [entry.asked for entry in entries])
        seen = [entry for entry, row in zip(entries, rows, strict=True) if row is None]
        if seen:
            raise _SeenBefore(seen)
        stored = [Stored(**row) for row in rows if row is not None]
        asked = [
            _question(entry.asked, each)
            for entry, each in zip(entries, stored, strict=True)
            if entry.asked.submit
        ]
        runs = _manager().enlist(opened, asked) if asked else []
    for entry, each in zip(entries, stored, strict=True):
        entry.given = each
    return runs


def _receive(opened: Connection, arrivals: Sequence[Arrival]) -> list[dict[str, Any] | None]:
    """Each one's row, in one round trip; ``None`` for one that was stored before."""
    query = sql("receive")
    with opened.pipeline():
        cursors = [
            opened.cursor(row_factory=dict_row).execute(
                query, _parameters(each.account, each.incoming)
            )
            for each in arrivals
        ]
    return [cursor.fetchone() for cursor in cursors]


def message_data(account: Account, incoming: Incoming, conversation_id: int) -> dict[str, Any]:
    """A message as the task ``process_message_async`` takes it."""
    return {
        "message_id": incoming.message_id,
        "channel": account.channel,
        "external_user_id": incoming.user_id,
        "content": incoming.content,
        "timestamp": incoming.sent_at.isoformat(),
        "message_type": incoming.message_type,
        "conversation_id": conversation_id,
        "raw_data": dict(incoming.raw_data),
    }


def _account(channel: str, app_id: str) -> Account:
    found = accounts.find(channel, app_id) if accounts.APP_ID.fullmatch(app_id) else None
    if found is None:
        raise Refusal(404, f"there is no {channel} app of that name here")
    return found


def _use_nonce(opened: Connection, arrival: Arrival) -> None:
    nonce = arrival.incoming.nonce
    if nonce is None:
        return
    digest = hashlib.sha256(arrival.body).digest()
    row = fetch(opened, "use_nonce", account_id=arrival.account.id, nonce=nonce, digest=digest)
    if row is None or not hmac.compare_digest(bytes(row["body_digest"]), digest):
        raise forged("the nonce was used before, with another body")


def _parameters(account: Account, incoming: Incoming) -> dict[str, Any]:
    return {
        "account_id": account.id,
        "user_id": incoming.user_id,
        "user_name": incoming.user_name,
        "language": language.language_of(incoming.content, incoming.language_hint),
        "default_language": account.option(
            "default_language", CHANNELS[account.channel].default_language
        ),
        "permissions": account.default_permissions,
        "conversation_id": incoming.conversation_id,
        "reply_to": _jsonb(incoming.reply_to),
        "message_id": incoming.message_id,
        "message_type": incoming.message_type,
        "content": incoming.content,
        "sent_at": incoming.sent_at,
        "raw_data": _jsonb(incoming.raw_data),
    }


def _jsonb(value: Mapping[str, Any]) -> Jsonb:
    return Jsonb(dict(value), dumps=orjson.dumps)


def _question(arrival: Arrival, stored: Stored) -> Submit:
    """The task that answers a message."""
    data = message_data(arrival.account, arrival.incoming, stored.conversation_id)
    return Submit("process_message_async", [data, stored.user_id])


@lru_cache(maxsize=1)
def _manager() -> TaskManager:
    return TaskManager()


_intake: Intake[Arrival, Stored] = Intake(_store_together, STORED_TOGETHER)


# -- at once ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="assistant")


def _answer(account: Account, stored: Stored) -> str | None:
    """The answer to a stored message, if it comes while the channel waits for the response."""
    response = Response(stored.id)
    _threads().submit(_take_turns, stored, response)
    return response.wait(CHANNELS[account.channel].response_seconds)


def _take_turns(stored: Stored, response: Response) -> None:
    """Wait for one's turn, and take it; what is left then is for a task."""
    turn = Turn(
        stored.conversation_id,
        f"request:{uuid4().hex}",
        handler().handle,
        response=response,
        until_seq=stored.seq,
        retries=False,
    )
    ends_at = time.monotonic() + AFTERWARDS_SECONDS
    try:
        report = turn.take()
        while report.outcome == "held" and time.monotonic() < ends_at:
            time.sleep(_POLL_SECONDS)
            if _is_handled(stored):
                break
            report = turn.take()
        hand_on(stored.conversation_id, report)
    except Exception:
        logger.exception("message %s is left to the task that resumes conversations", stored.id)
    finally:
        response.settle(None)


def _is_handled(stored: Stored) -> bool:
    with connection() as opened:
        row = fetch(opened, "message_state", id=stored.id)
    return row is None or row["state"] != "received"


def hand_on(conversation_id: int, report: Report) -> None:
    """See that somebody goes on with a conversation that waits for its channel."""
    if report.outcome == "waits":
        _manager().submit(
            "resume_conversation", [conversation_id], countdown=report.wait if report.wait else None
        )
