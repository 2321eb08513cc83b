"""Making a page: its template, its language, what every page shows, and errors as pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

import jinja2
from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from markupsafe import Markup

from ironbeat import __version__
from ironbeat.api.dashboard import formats
from ironbeat.api.dashboard.language import LANGUAGES, Translator, negotiate
from ironbeat.api.parts import Parts, parts_of
from ironbeat.api.visitors import LoginWanted
from ironbeat.observability.masking import masked

LANGUAGE_COOKIE = "ironbeat_language"
THEME_COOKIE = "ironbeat_theme"
YEAR_SECONDS = 365 * 86400

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

#: The parts of the dashboard: its path and its name.
SECTIONS = (
    ("/", "Overview"),
    ("/schedules", "Schedules"),
    ("/runs", "Runs"),
    ("/dead", "Dead letters"),
    ("/workloads", "Workloads"),
    ("/audit", "Audit"),
)


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("ironbeat.api.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "sections": SECTIONS,
        "languages": LANGUAGES,
        "version": __version__,
        "sparkline": formats.sparkline,
        "bars": formats.bars,
        "strip": formats.strip,
        "href": href,
        "hour_of": lambda number: timedelta(hours=number),
    }
    made.filters |= {"pretty": formats.pretty, "segment": segment}
    return made


def segment(name: str) -> str:
    """``name`` as part of a path; slashes stay, as routes take the whole rest."""
    return quote(name, safe="/")


def href(path: str, **query: Any) -> str:
    """A link with a query, without what is empty."""
    given = {name: value for name, value in query.items() if value not in (None, "", ())}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def render(
    request: Request,
    template: str,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """The page made of a template; ``values`` are its own, beside what every page has."""
    text = _environment().get_template(template).render(context(request) | values)
    return HTMLResponse(text, status, headers=HEADERS | (headers or {}))


def context(request: Request) -> dict[str, Any]:
    """What every template has."""
    parts = parts_of(request)
    say = translator(request)
    now = datetime.now(UTC)
    zone = ZoneInfo(parts.settings.timezone)
    session = getattr(request.state, "session", None)
    return {
        "t": say,
        "language": say.language,
        "theme": theme(request),
        "session": session,
        "may_change": session is not None and session.may_change,
        "path": request.url.path,
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "now": now,
        "zone": zone,
        "zone_name": parts.settings.timezone,
        "duration": lambda seconds: formats.duration(seconds, say),
        "ago": lambda then: formats.ago(then, now, say),
        "clock": lambda then: formats.clock(then, now, zone),
        "stamp": lambda then: formats.stamp(then, zone),
        "when": lambda then: _when(then, now, zone, say),
        "figure": lambda value, unit="": formats.figure(value, unit, say),
        "mask": masker(parts),
    }


def _when(then: datetime | None, now: datetime, zone: ZoneInfo, say: Translator) -> Markup:
    """An instant as people read it: how long ago, the time of day on hovering."""
    if then is None:
        return Markup("–")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        then.isoformat(), formats.stamp(then, zone), formats.ago(then, now, say)
    )


def translator(request: Request) -> Translator:
    """The language to answer a request in."""
    return Translator(
        negotiate(request.cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language"))
    )


def theme(request: Request) -> str:
    """``light``, ``dark``, or ``auto``: as the device has it."""
    found = request.cookies.get(THEME_COOKIE)
    return found if found in ("light", "dark") else "auto"


def masker(parts: Parts) -> Callable[[Any], str]:
    """What takes secrets out of a value and makes it text."""
    return lambda value: parts.mask(formats.pretty(masked(value)))


def redirect(path: str, **query: Any) -> RedirectResponse:
    """To another page, after a change."""
    return RedirectResponse(href(path, **query), 303, headers={"Cache-Control": "no-store"})


class PageRoute(APIRoute):
    """A route whose errors are pages: what the API would say of them, in words for people."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with its errors caught."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except LoginWanted as error:
                return _login(request, error)
            except Exception as error:
                explain = _explanation(request, type(error))
                if explain is None:
                    raise
                told = await explain(request, error)
                return error_page(request, told.status_code, json.loads(bytes(told.body)))

        return handle


def error_page(request: Request, status: int, problem: dict[str, Any]) -> Response:
    """What went wrong, as a page, or as the part of one that a script asked for."""
    part = "hx-request" in request.headers
    return render(
        request,
        "problem_part.html" if part else "problem.html",
        status,
        # A script swaps in what is well only, unless told where to.
        {"HX-Retarget": "#notice", "HX-Reswap": "innerHTML"} if part else None,
        code=status,
        title=problem.get("title", ""),
        detail=problem.get("detail", ""),
        errors=problem.get("errors", ()),
    )


def _login(request: Request, error: LoginWanted) -> Response:
    address = href("/login", next=error.back if error.back != "/" else None)
    if "hx-request" in request.headers:
        # A part of a page was asked for; the whole page has to go.
        return Response(status_code=204, headers={"HX-Redirect": "/login"})
    return RedirectResponse(address, 303, headers={"Cache-Control": "no-store"})


def _explanation(request: Request, kind: type[BaseException]) -> Any:
    handlers = request.app.exception_handlers
    for each in kind.__mro__:
        if each is Exception:
            return None
        if each in handlers:
            return handlers[each]
    return None
