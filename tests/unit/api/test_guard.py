"""Who passes without a token, and how tokens are read."""

import asyncio
import base64

import pytest
from fastapi import Request

from ironbeat.api.problems import Problem
from ironbeat.api.security import Guard
from ironbeat.settings import Settings

TOKEN = "t0ken-of-the-api"


def guard(**fields):
    return Guard(Settings(**{"api_token": TOKEN} | fields))


def request(client="203.0.113.9", authorization=None):
    headers = [(b"authorization", authorization.encode("latin-1"))] if authorization else []
    return Request({"type": "http", "headers": headers, "client": (client, 1) if client else None})


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("host", "open_to"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.1.0.7", True),
        ("::ffff:10.1.0.7", True),
        ("2001:db8::5", True),
        ("10.2.0.7", False),
        ("203.0.113.9", False),
        ("2001:db9::5", False),
        ("localhost", False),
        ("", False),
        (None, False),
    ],
)
def test_probes_are_open_to_this_machine_and_the_monitors(host, open_to):
    one = guard(monitoring_networks="10.1.0.0/24, 2001:db8::/64")
    assert one.is_monitor(host) is open_to


def test_without_monitoring_networks_only_this_machine():
    assert guard().is_monitor("127.0.0.1") and not guard().is_monitor("10.1.0.7")


@pytest.mark.parametrize("networks", ["10.1.0.0/99", "somewhere", "10.1.0.5/24"])
def test_a_bad_network_is_refused(networks):
    with pytest.raises(ValueError, match="use e"):
        Settings(monitoring_networks=networks)


@pytest.mark.parametrize(
    "authorization",
    [f"Bearer {TOKEN}", f"bearer  {TOKEN} ", basic("anybody", TOKEN), basic("", TOKEN)],
)
def test_the_token_passes(authorization):
    asyncio.run(guard().token(request(authorization=authorization)))
    asyncio.run(guard().token_or_monitor(request(authorization=authorization)))


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        TOKEN,
        f"Token {TOKEN}",
        "Bearer \xe9\xff",
        "Basic !!!",
        basic("x", "wrong"),
        basic(TOKEN, ""),
    ],
)
def test_anything_else_does_not(authorization):
    for check in (guard().token, guard().token_or_monitor):
        with pytest.raises(Problem) as refused:
            asyncio.run(check(request(authorization=authorization)))
        assert refused.value.status == 401
        assert TOKEN not in refused.value.detail


@pytest.mark.parametrize("authorization", [None, "Bearer ", "Bearer x", basic("", "")])
@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_nobody_passes(token, authorization):
    with pytest.raises(Problem) as refused:
        asyncio.run(guard(api_token=token).token(request(authorization=authorization)))
    assert "IRONBEAT_API_TOKEN" in refused.value.detail
