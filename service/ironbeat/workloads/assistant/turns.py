"""Turns: a conversation is worked on by one holder at a time, message by message, in order.

Whoever comes (a worker's task, a webhook that answers at once) tries to hold the conversation. The
holder sends what is still to be sent, handles the oldest message, sends its answer, and so on until
nothing is left; one who finds it held goes away, because the holder will see that message too:
work raises the conversation's ``work_seq``, and only a holder who has seen the latest gives the
conversation back. A holder that dies is replaced when its hold lapses.

Answers go out in order: while one waits for its channel, nothing behind it is sent or handled.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from psycopg.rows import dict_row

from ironbeat import connection
from ironbeat.workloads.assistant import accounts, delivery
from ironbeat.workloads.assistant.accounts import Account
from ironbeat.workloads.assistant.channels import CHANNELS
from ironbeat.workloads.assistant.delivery import Attempt, Outcome
from ironbeat.workloads.assistant.language import say
from ironbeat.workloads.assistant.store import Connection, fetch, sql

logger = logging.getLogger(__name__)

# Renewed at every step. Longer than the longest step: a message's handling, see `handler`.
HOLD_SECONDS = 180.0
# After so long a holder lets somebody else go on, so that one chatty user does not keep a worker.
TURN_SECONDS = 60.0
# How often handling a message is tried, and how long the conversation waits in between.
MOST_FAILURES = 4
FAILURE_WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Message:
    """A message to be handled, with who wrote it."""

    id: int
    seq: int
    external_id: str
    message_type: str
    content: str
    language: str
    attempts: int
    user_id: int
    user_name: str
    permissions: Sequence[str]
    conversation_id: int
    account: Account
    reply_to: Mapping[str, Any] = field(repr=False)


Handle = Callable[[Message], str]


class Response:
    """A webhook's response that waits for the answer to one message, for a while."""

    def __init__(self, message_id: int) -> None:
        self.message_id = message_id
        self._lock = threading.Lock()
        self._claimed = self._given_up = False
        self._settled = threading.Event()
        self._text: str | None = None

    def wait(self, seconds: float) -> str | None:
        """The answer, if it comes in time; after ``None`` it goes over the channel's API."""
        if self._settled.wait(seconds):
            return self._text
        with self._lock:
            if not self._claimed:
                self._given_up = True
                return None
        # The answer is there and being written down, which takes milliseconds.
        self._settled.wait(delivery.SENDING_SECONDS)
        return self._text

    def claim(self, message_id: int, parts: Sequence[str]) -> bool:
        """Whether the response takes the answer. What needs several parts does not fit into it."""
        if message_id != self.message_id or len(parts) != 1:
            return False
        with self._lock:
            self._claimed = not self._given_up
            return self._claimed

    def settle(self, text: str | None) -> None:
        """The answer is written down; or there is none for the response. The first word counts."""
        if not self._settled.is_set():
            self._text = text
            self._settled.set()


@dataclass(frozen=True, slots=True)
class Report:
    """How a turn ended. ``wait``: seconds after which somebody should go on."""

    outcome: Literal["done", "held", "waits", "failed"]
    handled: int = 0
    sent: int = 0
    wait: float = 0.0
    error: BaseException | None = None


@dataclass(slots=True)
class Turn:
    """One holder's turn at a conversation.

    ``until_seq``: do not handle messages behind this one. ``retries``: whether a message that
    cannot be handled is tried again later; else its user is told at once.
    """

    conversation_id: int
    holder: str
    handle: Handle
    response: Response | None = None
    until_seq: int | None = None
    retries: bool = True
    handled: int = 0
    sent: int = 0

    def take(self) -> Report:
        """Work until nothing is left, or somebody else should go on."""
        looked = self._hold_and_look()
        if looked is None:
            return Report("held")
        ends_at = time.monotonic() + TURN_SECONDS
        kept = True
        try:
            while looked is not None:
                report = self._step(looked)
                if report is None and time.monotonic() > ends_at:
                    report = self._let_go("waits", wait=0.0)
                if report is not None:
                    kept = False
                    return report
                looked = self._hold_and_look()
            kept = False  # The hold lapsed, and somebody else has it.
            return self._report("held")
        finally:
            if kept:
                self._let_go_quietly()

    # -- steps -------------------------------------------------------------------------------------

    def _step(self, looked: Mapping[str, Any]) -> Report | None:
        """Do the oldest thing; ``None``: look again."""
        account = accounts.get(looked["account_id"])
        if looked["answers"]:
            return self._send_open(account, looked)
        waiting = [
            each
            for each in looked["messages"]
            if self.until_seq is None or each["seq"] <= self.until_seq
        ]
        if not waiting:
            # A request leaves what came behind its own message to those who brought it.
            ended = self._let_go("done") if looked["messages"] else self._release(looked)
            return ended
        message = _message(waiting[0], self.conversation_id, account, looked["reply_to"])
        last = len(looked["messages"]) == 1
        return self._handle(message, looked["work_seq"] if last else None)

    def _send_open(self, account: Account, looked: Mapping[str, Any]) -> Report | None:
        answer = looked["answers"][0]
        if answer["state"] == "sending":
            blocked = self._find_out(account, answer)
        elif answer["due_in"] > 0.5:
            blocked = float(answer["due_in"])
        else:
            blocked = self._send(account, looked["reply_to"], answer)
        return None if blocked is None else self._let_go("waits", wait=blocked)

    def _find_out(self, account: Account, answer: Mapping[str, Any]) -> float | None:
        """An answer that was being sent when its holder vanished; seconds to wait for it."""
        left = delivery.SENDING_SECONDS - float(answer["sending_for"])
        if left > 0:
            return left
        attempt = Attempt(answer["content"], answer["attempts"], 0.0, answer["unknown_fates"])
        outcome = delivery.doubtful(account, "the sender died, or lost the database", attempt)
        with connection() as opened:
            self._settle(opened, answer["id"], answer["attempts"], outcome)
        return outcome.wait if outcome.state == "pending" else None

    def _send(
        self, account: Account, reply_to: Mapping[str, Any], answer: Mapping[str, Any]
    ) -> float | None:
        """Send a pending answer; the seconds to wait if the channel does not take it now."""
        with connection() as opened:
            begun = fetch(opened, "begin_sending", id=answer["id"])
        if begun is None:
            return None
        attempt = Attempt(
            answer["content"], begun["attempts"], float(answer["age"]), answer["unknown_fates"]
        )
        outcome = delivery.send(account, reply_to, attempt)
        with connection() as opened:
            self._settle(opened, answer["id"], begun["attempts"], outcome)
        return outcome.wait if outcome.state == "pending" else None

    def _settle(self, opened: Connection, id: int, attempts: int, outcome: Outcome) -> None:
        fetch(opened, "settle", id=id, attempts=attempts, **outcome.parameters())
        self.sent += outcome.state == "confirmed"

    def _handle(self, message: Message, work_seq: int | None) -> Report | None:
        """Handle a message and send its answer; ``work_seq``: nothing else waited then."""
        try:
            text = self.handle(message)
        except Exception as error:
            return self._failed(message, error)
        return self._answer(message, text, "handled", None, work_seq)

    def _answer(
        self, message: Message, text: str, state: str, error: str | None, work_seq: int | None
    ) -> Report | None:
        channel = CHANNELS[message.account.channel]
        parts = delivery.parts_of(text, channel.longest_bytes) or [say("lost", message.language)]
        returned = self.response is not None and self.response.claim(message.id, parts)
        written = False
        try:
            with connection() as opened:
                row = fetch(
                    opened,
                    "finish_message",
                    id=message.id,
                    holder=self.holder,
                    state=state,
                    error=error,
                    contents=parts,
                    first_state="returned" if returned else "sending",
                )
            written = row is not None
        finally:
            if returned and self.response is not None:
                self.response.settle(parts[0] if written else None)
        self.handled += written
        if row is None:
            return None
        outcome = None
        if not returned:
            outcome = delivery.send(message.account, message.reply_to, Attempt(parts[0]))
        return self._after(row["id"], outcome, work_seq if len(parts) == 1 else None)

    def _after(self, id: int, outcome: Outcome | None, work_seq: int | None) -> Report | None:
        """Write down what became of the first part; if nothing else waits, end the turn with it."""
        blocked = outcome is not None and outcome.state == "pending"
        released = None
        with connection() as opened, opened.transaction():
            if outcome is not None:
                self._settle(opened, id, 1, outcome)
            if work_seq is not None and not blocked:
                released = fetch(
                    opened,
                    "release",
                    id=self.conversation_id,
                    holder=self.holder,
                    work_seq=work_seq,
                )
        if blocked and outcome is not None:
            return self._let_go("waits", wait=outcome.wait)
        return self._report("done") if released is not None else None

    def _failed(self, message: Message, error: Exception) -> Report | None:
        reason = f"{type(error).__name__}: {error}"[:500]
        with connection() as opened:
            row = fetch(opened, "count_failure", id=message.id, error=reason)
        attempts = row["attempts"] if row is not None else MOST_FAILURES
        if self.retries and attempts < MOST_FAILURES:
            logger.warning("message %s is tried again: %s", message.id, reason)
            return self._let_go("failed", wait=FAILURE_WAIT_SECONDS, error=error)
        logger.error("message %s cannot be handled", message.id, exc_info=error)
        return self._answer(message, say("failed", message.language), "failed", reason, None)

    # -- holding -----------------------------------------------------------------------------------

    def _hold_and_look(self) -> Mapping[str, Any] | None:
        mine = {"id": self.conversation_id, "holder": self.holder}
        # One round trip. `look` finds nothing unless `hold` did.
        with (
            connection() as opened,
            opened.transaction(),
            opened.pipeline(),
            opened.cursor(row_factory=dict_row) as looking,
        ):
            opened.execute(sql("unhurried"))
            opened.execute(sql("hold"), {"seconds": HOLD_SECONDS, **mine})
            return looking.execute(sql("look"), mine).fetchone()

    def _release(self, looked: Mapping[str, Any]) -> Report | None:
        with connection() as opened:
            row = fetch(
                opened,
                "release",
                id=self.conversation_id,
                holder=self.holder,
                work_seq=looked["work_seq"],
            )
        return self._report("done") if row is not None else None

    def _let_go(
        self,
        outcome: Literal["done", "waits", "failed"],
        *,
        wait: float = 0.0,
        error: BaseException | None = None,
    ) -> Report:
        with connection() as opened:
            fetch(opened, "release_until", id=self.conversation_id, holder=self.holder, wait=wait)
        return self._report(outcome, wait, error)

    def _let_go_quietly(self) -> None:
        """After an error that is already on its way up."""
        try:
            self._let_go("done")
        except Exception as error:
            logger.warning("conversation %s stays held: %s", self.conversation_id, error)

    def _report(
        self,
        outcome: Literal["done", "held", "waits", "failed"],
        wait: float = 0.0,
        error: BaseException | None = None,
    ) -> Report:
        return Report(outcome, self.handled, self.sent, wait, error)


def _message(
    row: Mapping[str, Any], conversation_id: int, account: Account, reply_to: Mapping[str, Any]
) -> Message:
    return Message(**row, conversation_id=conversation_id, account=account, reply_to=reply_to)
