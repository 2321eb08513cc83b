"""Logging in and out, and choosing a language."""

from __future__ import annotations

import hmac
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from ironbeat import database
from ironbeat.access import audit, sessions, users
from ironbeat.access.audit import Actor
from ironbeat.access.sessions import TooManyTries
from ironbeat.access.users import Role
from ironbeat.api.dashboard.language import LANGUAGES
from ironbeat.api.dashboard.pages import LANGUAGE_COOKIE, YEAR_SECONDS, PageRoute, redirect, render
from ironbeat.api.parts import parts_of
from ironbeat.api.visitors import (
    COOKIE,
    SECURE_COOKIE,
    VisitorOf,
    address_of,
    check_csrf,
    form_of,
    is_secure,
    key_of,
    session_of,
)
from ironbeat.settings import Settings

router = APIRouter(route_class=PageRoute)

# Login has no session yet: what the form sends must match what its cookie says.
LOGIN_COOKIE = "ironbeat_login"


@router.get("/login")
async def login_page(request: Request, next: Annotated[str, Query(max_length=2000)] = "/") -> Any:
    """The form to log in with."""
    if await session_of(request) is not None:
        return redirect(_inside(next))
    return _form(request, next)


@router.post("/login")
async def login(request: Request) -> Any:
    """Log in, or tell why not."""
    form = await form_of(request)
    name, back = form.get("name", "").strip()[:200], form.get("next", "/")
    cookie = request.cookies.get(LOGIN_COOKIE, "")
    same = hmac.compare_digest(form.get("token", "").encode(), cookie.encode())
    if not cookie or not same or request.headers.get("sec-fetch-site") == "cross-site":
        return _form(request, back, name, 403, "This form is too old, or not ours: try once more.")
    parts = parts_of(request)
    try:
        key = await parts.run(
            lambda: _enter(parts.settings, name, form.get("password", ""), address_of(request)), 8.0
        )
    except TooManyTries as error:
        told = "Too many logins failed. Try again in {n} seconds."
        answer = _form(request, back, name, 429, told, n=error.seconds)
        answer.headers["Retry-After"] = str(error.seconds)
        return answer
    if key is None:
        return _form(request, back, name, 401, "That name and password do not belong together.")
    answer = redirect(_inside(back))
    secure = is_secure(request)
    answer.set_cookie(
        SECURE_COOKIE if secure else COOKIE,
        key,
        max_age=int(parts.settings.session_hours * 3600),
        httponly=True,
        secure=secure,
        samesite="lax",
        path="/",
    )
    answer.delete_cookie(LOGIN_COOKIE, path="/login")
    return answer


@router.post("/logout")
async def logout(request: Request, who: VisitorOf) -> Any:
    """Log out."""
    await check_csrf(request, who.session)
    parts, key = parts_of(request), key_of(request) or ""
    url = parts.settings.database_url.get_secret_value()

    def leave() -> None:
        with audit.noted(url, who.actor, "login.end"), database.connection(url) as connection:
            sessions.end(connection, key)

    await parts.run(leave)
    answer = redirect("/login")
    answer.delete_cookie(COOKIE, path="/")
    answer.delete_cookie(SECURE_COOKIE, path="/", secure=True)
    return answer


@router.get("/language/{language}")
async def choose_language(
    language: str, next: Annotated[str, Query(max_length=2000)] = "/"
) -> Response:
    """Remember a language and go back."""
    answer = RedirectResponse(_inside(next), 303, headers={"Cache-Control": "no-store"})
    if language in LANGUAGES:
        answer.set_cookie(
            LANGUAGE_COOKIE, language, max_age=YEAR_SECONDS, samesite="lax", httponly=True, path="/"
        )
    return answer


def given_passwords(settings: Settings) -> dict[Role, str]:
    """The passwords of the settings' two accounts, of those that are set."""
    found: dict[Role, str] = {}
    for role, secret in (
        ("viewer", settings.dashboard_viewer_password),
        ("operator", settings.dashboard_operator_password),
    ):
        if secret is not None and secret.get_secret_value():
            found[role] = secret.get_secret_value()  # type: ignore[index]
    return found


def _enter(settings: Settings, name: str, password: str, address: str) -> str | None:
    """The key of a new session, or ``None``. Raises :class:`TooManyTries`."""
    url = settings.database_url.get_secret_value()
    with database.connection(url) as connection:
        sessions.check_tries(connection, name, address)
        user = users.authenticate(connection, given_passwords(settings), name, password)
        note = audit.begin(
            connection, Actor(name or "(nobody)", "dashboard", address), "login.begin", "", {}
        )
        if user is None:
            sessions.count_failure(connection, name, address)
            audit.complete(connection, note, "refused: wrong name or password")
            return None
        sessions.forget_failures(connection, name, address)
        key = sessions.start(connection, user, address, settings.session_hours * 3600)
        audit.complete(connection, note, audit.DONE, {"role": user.role})
        return key


def _form(
    request: Request, back: str, name: str = "", status: int = 200, told: str = "", **figures: Any
) -> Response:
    token = secrets.token_urlsafe(24)
    answer = render(
        request,
        "login.html",
        status,
        back=_inside(back),
        name=name,
        told=told,
        figures=figures,
        token=token,
    )
    answer.set_cookie(
        LOGIN_COOKIE,
        token,
        max_age=3600,
        httponly=True,
        secure=is_secure(request),
        samesite="strict",
        path="/login",
    )
    return answer


def _inside(path: str) -> str:
    """``path`` if it is one of ours; a link could name another site to go to after the login."""
    inside = path.startswith("/") and not path.startswith(("//", "/\\")) and "\n" not in path
    return path if inside and path.isprintable() else "/"
