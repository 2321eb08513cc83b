"""MessageHandler: from a message to the text of its answer.

A command (``/help``, ``/stock TPE-1``) is carried out; anything else goes to the responder. What
takes long is begun as a task and told later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import orjson

from ironbeat import TaskManager
from ironbeat.workloads.assistant import delivery
from ironbeat.workloads.assistant.channels import reading
from ironbeat.workloads.assistant.incoming import Refusal
from ironbeat.workloads.assistant.language import say
from ironbeat.workloads.assistant.responder import Automatic, Responder
from ironbeat.workloads.assistant.tools import (
    SECONDS,
    ToolBroken,
    ToolResult,
    ToolUser,
    registered,
    run_tool,
)
from ironbeat.workloads.assistant.turns import Message

Command = Callable[["MessageHandler", Message, str], str]


class MessageHandler:
    """Handles one message at a time; the same for every channel and in both modes."""

    def __init__(self, responder: Responder | None = None) -> None:
        self._responder = responder or Automatic()

    def handle(self, message: Message) -> str:
        """The answer. What it raises is tried again, or told to the user as a failure."""
        if not message.content:
            return say("text_only", message.language)
        if message.content[0] in "/／":
            return self._command(message)
        return self._responder.respond(
            message, _user(message), lambda name, parameters: self.call(message, name, parameters)
        )

    def call(self, message: Message, name: str, parameters: Mapping[str, Any]) -> ToolResult | None:
        """Run a tool for the message's user; a long one is begun as a task (``None``)."""
        user = _user(message)
        found = registered()[name]
        if found.long and found.allows(user):
            TaskManager().submit(
                "execute_tool_async",
                [name, message.user_id, dict(parameters)],
                {"message_id": message.id},
                idempotency_key=f"assistant:{message.id}:{name}:{_digest(parameters)}",
            )
            return None
        if found.seconds > SECONDS:
            delivery.busy(message.account, message.reply_to)
        try:
            return run_tool(name, user, parameters, message_id=message.id)
        except ToolBroken as error:
            return ToolResult(name, "broken", error=str(error))

    def _command(self, message: Message) -> str:
        name, _, rest = message.content[1:].partition(" ")
        # In a Telegram group commands name the bot.
        name = name.partition("@")[0].strip().lower()
        command = COMMANDS.get(name)
        if command is None:
            return say("unknown_command", message.language, name=f"/{name}"[:50])
        return command(self, message, rest.strip())

    def _told(self, message: Message, name: str, parameters: Mapping[str, Any]) -> str:
        result = self.call(message, name, parameters)
        if result is None:
            return say("started", message.language, name=name)
        return result.told(message.language)

    # -- commands ----------------------------------------------------------------------------------

    def _help(self, message: Message, rest: str) -> str:
        return say("help", message.language)

    def _tools(self, message: Message, rest: str) -> str:
        user = _user(message)
        lines = [
            f"{each.name}: {each.description}"
            for each in registered().values()
            if each.allows(user)
        ]
        return "\n".join(lines) or say("no_tools", message.language)

    def _stock(self, message: Message, rest: str) -> str:
        warehouse, _, product = rest.partition(" ")
        if not warehouse:
            return say("usage", message.language, usage="/stock TPE-1 [SKU]")
        parameters = {"warehouse": warehouse, **({"product": product} if product else {})}
        return self._told(message, "check_inventory_stock", parameters)

    def _run(self, message: Message, rest: str) -> str:
        name, _, text = rest.partition(" ")
        if not name:
            return say("usage", message.language, usage='/run TOOL {"parameter": "value"}')
        if name not in registered():
            return say("no_such_tool", message.language, name=name[:50])
        try:
            parameters = reading.json_object(text.encode() or b"{}")
        except Refusal:
            return say("usage", message.language, usage='/run TOOL {"parameter": "value"}')
        return self._told(message, name, parameters)


COMMANDS: Mapping[str, Command] = {
    "help": MessageHandler._help,
    "start": MessageHandler._help,
    "tools": MessageHandler._tools,
    "stock": MessageHandler._stock,
    "run": MessageHandler._run,
}


@lru_cache(maxsize=1)
def handler() -> MessageHandler:
    """The handler of this process."""
    return MessageHandler()


def _user(message: Message) -> ToolUser:
    return ToolUser(message.user_id, tuple(message.permissions), message.language)


def _digest(parameters: Mapping[str, Any]) -> str:
    text = orjson.dumps(dict(parameters), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:16]
