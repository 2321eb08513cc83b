"""Tools: functions registered by name, which the assistant runs for its users.

A tool's parameters are those of its function; their annotations become a pydantic model, so that
what a user or a language model asks for is validated before anything runs. Each run is checked
against the user's permissions, ended (as far as anybody waits for it) by the tool's time limit, and
logged with its input, output and duration.

A package registers its own by an entry point in the group ``ironbeat.assistant.tools`` that names
the module to import::

    @tool("count_orders", permission="orders.read", description="Orders of a day.")
    def count_orders(day: date) -> dict: ...
"""

from __future__ import annotations

import importlib
import inspect
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Literal, TypeVar, get_type_hints

import psycopg
import structlog
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import to_jsonable_python

from ironbeat import connection
from ironbeat.workloads.assistant.language import say
from ironbeat.workloads.assistant.store import note

log = structlog.get_logger()
logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "ironbeat.assistant.tools"
SECONDS = 10.0
# Its conversation waits for a tool that is not long.
MOST_SECONDS = 30.0
# A result goes into the log and into a chat.
MOST_OUTPUT_CHARACTERS = 100_000

State = Literal["succeeded", "failed", "broken", "invalid", "denied", "timed_out"]
Progress = Callable[[int, str], None]
F = TypeVar("F", bound=Callable[..., Any])


class ToolError(Exception):
    """A tool cannot do what it was asked; the message is for the user."""


class ToolBroken(Exception):
    """A tool met something that passes; running it again may help."""


@dataclass(frozen=True, slots=True)
class ToolUser:
    """For whom a tool runs."""

    id: int
    permissions: Sequence[str] = ()
    language: str = "en"


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may ask for by a parameter ``context``: its user, and how to tell of progress."""

    user: ToolUser
    progress: Progress


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of a run."""

    tool: str
    state: State
    output: Any = None
    error: str | None = None

    def told(self, language: str) -> str:
        """The result in words."""
        found = registered().get(self.tool)
        if self.state == "succeeded" and found is not None and found.tell is not None:
            return found.tell(self.output, language)
        if self.state == "succeeded":
            return str(self.output)
        if self.state == "invalid":
            return say("invalid", language, name=self.tool, why=self.error)
        if self.state == "failed":
            return str(self.error)
        return say(self.state, language, name=self.tool)


@dataclass(frozen=True, slots=True)
class Tool:
    """A registered function. ``permission``: what its users need; ``None``: everybody may.

    ``seconds``: its time limit. ``long``: it runs in a task of its own and reports progress.
    ``tell`` words an output, ``understand`` finds the parameters in a sentence that asks for it.
    """

    name: str
    function: Callable[..., Any]
    description: str
    parameters: type[BaseModel]
    permission: str | None
    seconds: float
    long: bool
    takes_context: bool
    tell: Callable[[Any, str], str] | None
    understand: Callable[[str], dict[str, Any] | None] | None

    def allows(self, user: ToolUser) -> bool:
        """Whether the user may run it."""
        return self.permission is None or self.permission in user.permissions


_registry: dict[str, Tool] = {}


def tool(
    name: str,
    *,
    description: str,
    permission: str | None,
    seconds: float = SECONDS,
    long: bool = False,
    tell: Callable[[Any, str], str] | None = None,
    understand: Callable[[str], dict[str, Any] | None] | None = None,
) -> Callable[[F], F]:
    """Register the decorated function as a tool; see :class:`Tool`.

    Raises :class:`ValueError` for a name that is taken, a parameter without annotation, or a time
    limit above :data:`MOST_SECONDS` of a tool that is not ``long``.
    """
    if seconds > MOST_SECONDS and not long:
        raise ValueError(f"tool {name!r} may take {seconds:g} s: register it with long=True")

    def register(function: F) -> F:
        known = _registry.get(name)
        if known is not None and known.function.__qualname__ != function.__qualname__:
            raise ValueError(f"a tool {name!r} is registered already")
        model, takes_context = _model(name, function)
        _registry[name] = Tool(
            name,
            function,
            description,
            model,
            permission,
            seconds,
            long,
            takes_context,
            tell,
            understand,
        )
        return function

    return register


def registered() -> Mapping[str, Tool]:
    """Every tool by name, those of other packages too."""
    _load()
    return _registry


@lru_cache(maxsize=1)
def _load() -> None:
    importlib.import_module("ironbeat.workloads.assistant.inventory")
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            point.load()
        except Exception:
            # One package's mistake must not silence the assistant.
            logger.exception("the tools of %s are left out", point.value)


def run_tool(
    name: str,
    user: ToolUser,
    parameters: Mapping[str, Any],
    *,
    message_id: int | None = None,
    run_id: str | None = None,
    progress: Progress = lambda percent, step: None,
) -> ToolResult:
    """Run a tool for a user: checked, limited, logged. ``progress`` is called in this thread.

    Raises :class:`ToolBroken` for what may pass by itself, and :class:`LookupError` for no tool of
    that name.
    """
    found = registered().get(name)
    if found is None:
        raise LookupError(f"there is no tool {name!r}")
    started = time.monotonic()
    with connection() as opened:
        row = note(
            opened,
            "begin_tool_run",
            tool=name,
            user_id=user.id,
            message_id=message_id,
            run_id=run_id,
            input=Jsonb(_storable(to_jsonable_python(dict(parameters), fallback=str))),
        )
    assert row is not None
    result, broken = _checked(found, user, parameters, progress)
    milliseconds = int((time.monotonic() - started) * 1000)
    with connection() as opened:
        note(
            opened,
            "end_tool_run",
            id=row["id"],
            state=result.state,
            output=None if result.output is None else Jsonb(result.output),
            error=result.error,
            duration_ms=milliseconds,
        )
    log.info("tool run", action="tool_run", tool=name, state=result.state, ms=milliseconds)
    if broken is not None:
        raise ToolBroken(result.error) from broken
    return result


def _checked(
    found: Tool, user: ToolUser, parameters: Mapping[str, Any], progress: Progress
) -> tuple[ToolResult, Exception | None]:
    """The result, and the error of a run that may be tried again."""
    if not found.allows(user):
        return ToolResult(found.name, "denied", error=f"needs {found.permission}"), None
    try:
        values = found.parameters.model_validate(dict(parameters))
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3]
        )
        return ToolResult(found.name, "invalid", error=told), None
    try:
        output = _limited(found, user, values, progress)
    except TimeoutError:
        return ToolResult(found.name, "timed_out", error=f"took more than {found.seconds} s"), None
    except ToolError as error:
        return ToolResult(found.name, "failed", error=str(error)), None
    except (ToolBroken, psycopg.OperationalError, ConnectionError) as error:
        return ToolResult(found.name, "broken", error=f"{type(error).__name__}: {error}"), error
    except Exception as error:
        log.exception("tool failed", action="tool_failed", tool=found.name)
        # For the log of tools; the user is told only that it failed.
        return ToolResult(found.name, "broken", error=f"{type(error).__name__}: {error}"), None
    return ToolResult(found.name, "succeeded", output), None


def _limited(found: Tool, user: ToolUser, values: BaseModel, progress: Progress) -> Any:
    """What the function returns within its time; raises :class:`TimeoutError`.

    A function cannot be ended from outside: its thread is left behind, and what it returns is lost.
    """
    events: queue.Queue[tuple[str, Any]] = queue.Queue()
    arguments = {name: getattr(values, name) for name in type(values).model_fields}
    if found.takes_context:
        arguments["context"] = ToolContext(
            user, lambda percent, step: events.put(("progress", (percent, step)))
        )

    def work() -> None:
        try:
            output = _storable(to_jsonable_python(found.function(**arguments)))
            if len(str(output)) > MOST_OUTPUT_CHARACTERS:
                raise ToolError(f"the result of {found.name} is too large")
            events.put(("output", output))
        except BaseException as error:
            events.put(("error", error))

    # A copy: the log lines of the tool belong to the task or request that asked for it.
    context = copy_context()
    threading.Thread(target=context.run, args=(work,), daemon=True, name=found.name).start()
    ends_at = time.monotonic() + found.seconds
    while True:
        try:
            kind, value = events.get(timeout=max(0.0, ends_at - time.monotonic()))
        except queue.Empty:
            raise TimeoutError from None
        if kind == "output":
            return value
        if kind == "error":
            raise value
        progress(*value)


def _storable(value: Any) -> Any:
    """A JSON value as PostgreSQL can hold it: no NUL, no half surrogate pairs, no infinity."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return [_storable(each) for each in value]
    if isinstance(value, dict):
        return {_storable(str(name)): _storable(each) for name, each in value.items()}
    return value


def _model(name: str, function: Callable[..., Any]) -> tuple[type[BaseModel], bool]:
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    takes_context = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "context":
            takes_context = True
            continue
        if parameter.name not in hints:
            raise ValueError(f"parameter {parameter.name} of tool {name!r} has no annotation")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    return model, takes_context
