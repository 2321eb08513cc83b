"""Who asks for a page, and whether they may: the session's cookie, the CSRF token, the role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, quote

from fastapi import Depends, Request

from ironbeat import database
from ironbeat.access import sessions
from ironbeat.access.audit import Actor
from ironbeat.access.sessions import Session
from ironbeat.api.parts import parts_of
from ironbeat.api.problems import Problem

COOKIE = "ironbeat_session"
# A browser keeps a cookie of this name only when it came over TLS, for this host alone.
SECURE_COOKIE = "__Host-ironbeat_session"
CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"
MOST_FIELDS = 100


class LoginWanted(Exception):
    """Nobody is logged in; ``back`` is where to go afterwards."""

    def __init__(self, back: str) -> None:
        super().__init__("log in first")
        self.back = back


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is logged in, and from where."""

    session: Session
    address: str

    @property
    def actor(self) -> Actor:
        """The visitor as the audit knows them."""
        return Actor(self.session.name, "dashboard", self.address)


async def visitor(request: Request) -> Visitor:
    """Dependency: somebody who is logged in. Raises :class:`LoginWanted`."""
    found = await session_of(request)
    if found is None:
        raise LoginWanted(_way_back(request))
    request.state.session = found
    return Visitor(found, address_of(request))


async def operator(request: Request) -> Visitor:
    """Dependency: somebody who may change things, by a form of ours. Raises :class:`Problem`."""
    found = await visitor(request)
    await check_csrf(request, found.session)
    if not found.session.may_change:
        raise Problem(403, "You may look and not change: log in as an operator.")
    return found


async def check_csrf(request: Request, session: Session) -> None:
    """Raise :class:`Problem` unless the request came from a page of ours."""
    token = request.headers.get(CSRF_HEADER) or (await form_of(request)).get(CSRF_FIELD, "")
    if request.headers.get("sec-fetch-site") == "cross-site" or not session.vouches(token):
        raise Problem(403, "This form is too old, or not ours: load the page again.")


async def session_of(request: Request) -> Session | None:
    """The session that a request's cookie names, if it holds."""
    key = key_of(request)
    if key is None:
        return None
    parts = parts_of(request)
    url = parts.settings.database_url.get_secret_value()

    def read() -> Session | None:
        with database.connection(url) as connection:
            return sessions.find(connection, key)

    return await parts.run(read, 5.0)


def key_of(request: Request) -> str | None:
    """The session's key in a request's cookie."""
    return request.cookies.get(SECURE_COOKIE if is_secure(request) else COOKIE)


def is_secure(request: Request) -> bool:
    """Whether the browser came over TLS, to us or to the proxy before us.

    Who makes the header up only makes their own cookie stricter.
    """
    forwarded = request.headers.get("x-forwarded-proto", "")
    return request.url.scheme == "https" or forwarded.lower() == "https"


def address_of(request: Request) -> str:
    """From where a request comes."""
    return request.client.host if request.client else ""


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form; of a repeated one the last. Raises :class:`Problem`."""
    found = getattr(request.state, "form", None)
    if found is None:
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind not in ("application/x-www-form-urlencoded", ""):
            raise Problem(415, "Send the form as application/x-www-form-urlencoded.")
        try:
            pairs = parse_qsl(
                (await request.body()).decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS
            )
        except ValueError:
            raise Problem(400, "The form cannot be read.") from None
        if any("\0" in value for _, value in pairs):
            raise Problem(422, "The form holds a NUL character, which nothing can store.")
        found = request.state.form = {name: value.replace("\r\n", "\n") for name, value in pairs}
    return found


def _way_back(request: Request) -> str:
    if request.method != "GET":
        return "/"
    query = f"?{request.url.query}" if request.url.query else ""
    return quote(request.url.path, safe="/") + query


VisitorOf = Annotated[Visitor, Depends(visitor)]
OperatorOf = Annotated[Visitor, Depends(operator)]
