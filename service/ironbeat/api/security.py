"""Who may ask what.

Everything wants the token, as ``Authorization: Bearer TOKEN``, or as the password of HTTP Basic for
people with a browser, or a login to the dashboard (who may only look may only ask). Two exceptions:
``/health`` and ``/metrics`` answer loopback and the monitoring networks without it, and a route of
a workload tagged :data:`OWN_GUARD` guards itself (a webhook checks its channel's signature).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import secrets

from fastapi import Request

from ironbeat.access.audit import Actor
from ironbeat.api.problems import Problem
from ironbeat.api.visitors import CSRF_HEADER, address_of, session_of
from ironbeat.settings import Settings

OWN_GUARD = "guards itself"


class Guard:
    """Decides whether a request may pass."""

    def __init__(self, settings: Settings):
        token = settings.api_token
        self._token = token.get_secret_value().encode() if token is not None else b""
        self._networks = settings.monitors

    async def token(self, request: Request) -> None:
        """Dependency: the request must carry the token, unless its route guards itself."""
        if OWN_GUARD in getattr(request.scope.get("route"), "tags", ()):
            return
        if "authorization" not in request.headers and await self._is_logged_in(request):
            return
        self._require(request)
        request.state.actor = Actor("token", "api", address_of(request))

    @staticmethod
    async def _is_logged_in(request: Request) -> bool:
        """Whether the dashboard's login lets this request pass; a change needs its CSRF token."""
        if "cookie" not in request.headers:
            return False
        session = await session_of(request)
        if session is None:
            return False
        if request.method not in ("GET", "HEAD"):
            if not session.vouches(request.headers.get(CSRF_HEADER, "")):
                return False
            if not session.may_change:
                raise Problem(403, "You may look and not change: log in as an operator.")
        request.state.actor = Actor(session.name, "api", address_of(request))
        return True

    async def token_or_monitor(self, request: Request) -> None:
        """Dependency: the request must come from a monitor, or carry the token."""
        if not self.is_monitor(request.client.host if request.client else None):
            self._require(request)

    def is_monitor(self, host: str | None) -> bool:
        """Whether ``host`` is this machine or in a monitoring network."""
        try:
            address = ipaddress.ip_address(host or "")
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return address.is_loopback or any(address in network for network in self._networks)

    def _require(self, request: Request) -> None:
        offered = _offered(request.headers.get("authorization"))
        # Compared even when none is set or offered: the time must not tell.
        if not secrets.compare_digest(offered, self._token) or not self._token:
            raise Problem(
                401,
                "Send the API's token: `Authorization: Bearer TOKEN`. It is the setting "
                "`api_token`; `./scripts/up` and the Ansible role generate it."
                if self._token
                else "This API has no token yet, so nobody may use it: set IRONBEAT_API_TOKEN.",
                headers={"WWW-Authenticate": 'Bearer, Basic realm="Ironbeat", charset="UTF-8"'},
            )


def _offered(header: str | None) -> bytes:
    scheme, _, value = (header or "").partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value.encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
