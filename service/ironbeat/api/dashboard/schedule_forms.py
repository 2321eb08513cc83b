"""The forms that make a schedule and change one, and what they show of its next fires.

Their paths stand beside ``/schedules/``, not below it: whatever is below is a schedule's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request

from ironbeat.api.dashboard.explained import explain
from ironbeat.api.dashboard.overview import read
from ironbeat.api.dashboard.pages import PageRoute, redirect, render, segment, translator
from ironbeat.api.dashboard.schedules import KINDS, change, in_words
from ironbeat.api.parts import Parts, parts_of
from ironbeat.api.problems import Problem
from ironbeat.api.visitors import OperatorOf, VisitorOf, form_of
from ironbeat.schedules import store
from ironbeat.schedules.definition import Definition, DefinitionError, from_input
from ironbeat.schedules.store import Schedule, ScheduleExists

router = APIRouter(route_class=PageRoute)

NEW = "/schedules-new"
SHOWN_FIRES = 5
LONGEST_EXPRESSION = 500

Text = Annotated[str, Query(max_length=LONGEST_EXPRESSION)]

# The fields of the form, each with what a definition holds under it.
_EDITED: Mapping[str, Callable[[Definition], Any]] = {
    "task": lambda d: d.task,
    "timezone": lambda d: d.timezone,
    "args": lambda d: json.dumps(d.args, ensure_ascii=False),
    "kwargs": lambda d: json.dumps(d.kwargs, ensure_ascii=False),
    "queue": lambda d: d.queue or "",
    "priority": lambda d: "" if d.priority is None else str(d.priority),
    "starts_at": lambda d: _local(d.starts_at, d.timezone),
    "ends_at": lambda d: _local(d.ends_at, d.timezone),
    "jitter": lambda d: f"{d.jitter_seconds}s",
    "expires": lambda d: "" if d.expires_seconds is None else f"{d.expires_seconds}s",
    "catch_up": lambda d: d.catch_up,
    "catch_up_max": lambda d: str(d.catch_up_max),
    "catch_up_window": lambda d: (
        "" if d.catch_up_window_seconds is None else f"{d.catch_up_window_seconds}s"
    ),
    "overlap": lambda d: d.overlap,
}
_KIND_OF = {short: kind for kind, short in KINDS.items()}
# Under which field of the form a problem is told that has another name in the definition.
_TOLD_AT = {
    **dict.fromkeys(_KIND_OF, "expression"),
    **{f"{name}_seconds": name for name in ("jitter", "expires", "catch_up_window")},
}
_TIMES = ("kind", "expression", "timezone", "starts_at", "ends_at")


@dataclass(frozen=True, slots=True)
class Known:
    """What a form may offer: the names of tasks and queues, as far as they are loaded."""

    tasks: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()


@router.get(NEW)
async def new_form(request: Request, who: VisitorOf) -> Any:
    """The form to make a schedule."""
    if not who.session.may_change:
        raise Problem(403, "You may look and not change: log in as an operator.")
    parts = parts_of(request)
    return await _form(request, None, _fresh(parts), {})


@router.post(NEW)
async def create(request: Request, who: OperatorOf) -> Any:
    """Make a schedule of an operator's own. Beat follows within a second."""
    form, parts = await form_of(request), parts_of(request)
    given = _given(form)
    name = given.get("name", "")
    await parts.ready()
    app = parts.celery()

    def make(connection: Any) -> Schedule:
        definition = from_input(given, timezone=parts.settings.timezone)
        return store.add(connection, definition, tasks=app.tasks, queues=app.amqp.queues)

    try:
        await change(parts, who, "schedule.add", name, make, given)
    except DefinitionError as error:
        return await _form(request, None, _fresh(parts) | form, error.problems, 422)
    except ScheduleExists as error:
        return await _form(request, None, _fresh(parts) | form, {"name": str(error)}, 409)
    return redirect(f"/schedules/{segment(name)}", told="added")


@router.get("/schedules/{name:path}/edit")
async def edit_form(request: Request, name: str, _: VisitorOf) -> Any:
    """The form to change a schedule."""
    found = await read(parts_of(request), lambda c: store.get(c, name))
    return await _form(request, found, _values(found.definition), {})


@router.post("/schedules/{name:path}/edit")
async def edit(request: Request, name: str, who: OperatorOf) -> Any:
    """Change a schedule. Beat follows within a second."""
    form, parts = await form_of(request), parts_of(request)
    found = await read(parts, lambda c: store.get(c, name))
    changes = _changes(found.definition, form)
    if not changes:
        return redirect(f"/schedules/{segment(name)}", told="unchanged")
    await parts.ready()
    app = parts.celery()
    try:
        await change(
            parts,
            who,
            "schedule.edit",
            name,
            lambda c: store.edit(c, name, changes, tasks=app.tasks, queues=app.amqp.queues),
            changes,
        )
    except DefinitionError as error:
        values = _values(found.definition) | form
        return await _form(request, found, values, error.problems, 422)
    return redirect(f"/schedules/{segment(name)}", told="edited")


@router.get("/schedules-preview")
async def preview(
    request: Request,
    _: VisitorOf,
    kind: Text = "cron",
    expression: Text = "",
    timezone: Text = "",
    starts_at: Text = "",
    ends_at: Text = "",
    of: Annotated[str, Query(max_length=200)] = "",
) -> Any:
    """When a schedule with these times would fire, in words and its next fires; a part of a page.

    ``of`` names the one that is being edited: an interval goes on counting from its beginning.
    """
    parts = parts_of(request)
    typed = dict(zip(_TIMES, (kind, expression, timezone, starts_at, ends_at), strict=True))
    if not expression.strip():
        return render(request, "schedule_preview.html", words="", fires=(), problems={})
    given = _given(typed | {"name": "preview", "task": "preview"})
    try:
        definition = from_input(given, timezone=parts.settings.timezone)
        now = datetime.now(UTC)
        anchor = definition.starts_at or await _anchor(parts, of) or now.replace(microsecond=0)
        fires = definition.upcoming(SHOWN_FIRES, now=now, anchor=anchor)
    except DefinitionError as error:
        problems = _at_fields(request, error.problems)
        return render(request, "schedule_preview.html", words="", fires=(), problems=problems)
    return render(
        request,
        "schedule_preview.html",
        words=in_words(request)(definition),
        fires=[fire.scheduled_for for fire in fires],
        problems={},
    )


async def _anchor(parts: Parts, name: str) -> datetime | None:
    """From when the intervals of the schedule ``name`` count; ``None`` without a schedule."""
    if not name:
        return None
    found = await read(parts, lambda c: store.listing(c, name=name))
    return found[0].anchor_at if found else None


def _local(at: datetime | None, zone: str) -> str:
    if at is None:
        return ""
    return at.astimezone(ZoneInfo(zone)).replace(tzinfo=None).isoformat(sep=" ")


def _values(definition: Definition) -> dict[str, str]:
    values = {name: str(value(definition)) for name, value in _EDITED.items()}
    return values | {
        "kind": KINDS.get(definition.kind, "cron"),
        "expression": str(definition.expression),
    }


def _fresh(parts: Parts) -> dict[str, str]:
    """What the form for a new schedule says at first: what holds if nothing else is said."""
    plain = Definition(
        name="new", task="new", kind="cron", expression="@daily", timezone=parts.settings.timezone
    )
    return _values(plain) | {"name": "", "task": "", "expression": "", "enabled": "on"}


def _given(form: Mapping[str, str]) -> dict[str, str]:
    """What a form for a new schedule says, as a definition is described; nothing of what is empty.

    Raises :class:`Problem` for a kind that the form does not offer.
    """
    fields = ("name", *_EDITED, "expression", "enabled")
    given = {name: form[name].strip() for name in fields if form.get(name, "").strip()}
    return given | {"kind": _kind(form.get("kind", "cron"))}


def _kind(short: str) -> str:
    if short not in _KIND_OF:
        raise Problem(422, "A schedule is one of cron, every, solar, once.")
    return _KIND_OF[short]


def _changes(definition: Definition, form: Mapping[str, str]) -> dict[str, str]:
    """What the form says other than the definition, as a person types it."""
    before = _values(definition)
    changes = {
        name: form[name] for name in _EDITED if name in form and form[name].strip() != before[name]
    }
    times = ("kind", "expression")
    if any(form.get(name, before[name]).strip() != before[name] for name in times):
        kind = form.get("kind", before["kind"])
        _kind(kind)
        changes[kind] = form.get("expression", before["expression"])
    return changes


def _at_fields(request: Request, problems: Mapping[str, str]) -> dict[str, str]:
    """The problems by the field of the form that has to be changed, in the reader's language."""
    say = translator(request)
    told: dict[str, str] = {}
    for name, problem in problems.items():
        field, said = _TOLD_AT.get(name, name), explain(problem, say)
        told[field] = f"{told[field]}; {said}" if field in told else said
    return told


async def _form(
    request: Request,
    found: Schedule | None,
    values: Mapping[str, str],
    problems: Mapping[str, str],
    status: int = 200,
) -> Any:
    return render(
        request,
        "schedule_form.html",
        status,
        schedule=found,
        values=values,
        problems=_at_fields(request, problems),
        kinds=list(_KIND_OF),
        known=await _known(parts_of(request)),
    )


async def _known(parts: Parts) -> Known:
    """What there is to choose from. A form must not wait for it, nor fail without it."""
    if not parts.loaded:
        return Known()
    app = parts.celery()
    tasks = tuple(sorted(name for name in app.tasks if not name.startswith("celery.")))
    return Known(tasks, tuple(sorted(app.amqp.queues)))
