"""Who words the answer to a message that is no command.

The built-in responder knows tools that recognise a question, and what is stored as knowledge. An
account with ``llm_url`` has a language model answer, which calls the same tools; while that does
not answer, the built-in one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from ironbeat.workloads.assistant import knowledge
from ironbeat.workloads.assistant.endpoint import Endpoint, EndpointFailed
from ironbeat.workloads.assistant.language import say
from ironbeat.workloads.assistant.tools import ToolResult, ToolUser, registered
from ironbeat.workloads.assistant.turns import Message

log = structlog.get_logger()

#: Runs a tool for a message's user; ``None``: it was begun in a task of its own.
CallTool = Callable[[str, Mapping[str, Any]], ToolResult | None]


class Responder(Protocol):
    """Words an answer."""

    def respond(self, message: Message, user: ToolUser, call_tool: CallTool) -> str:
        """The answer."""
        ...


class BuiltIn:
    """Tools that understand the question, then knowledge, then an honest word."""

    def respond(self, message: Message, user: ToolUser, call_tool: CallTool) -> str:
        """The answer."""
        for found in registered().values():
            if found.understand is None or not found.allows(user):
                continue
            parameters = found.understand(message.content)
            if parameters is not None:
                result = call_tool(found.name, parameters)
                if result is None:
                    return say("started", message.language, name=found.name)
                return result.told(message.language)
        passages = knowledge.search(message.content)
        if passages:
            quoted = "\n\n".join(f"{each.text}\n— {each.source}" for each in passages)
            return f"{say('found', message.language)}\n\n{quoted}"
        return say("lost", message.language)


class Automatic:
    """The account's language model where it has one, else (and while that fails) the built-in."""

    def __init__(self) -> None:
        self._built_in = BuiltIn()

    def respond(self, message: Message, user: ToolUser, call_tool: CallTool) -> str:
        """The answer."""
        if message.account.option("llm_url"):
            try:
                return Endpoint(message.account).respond(message, user, call_tool)
            except EndpointFailed as error:
                log.warning("the language model does not answer", action="llm", reason=str(error))
        return self._built_in.respond(message, user, call_tool)
