"""Access tokens: fetched before they end, by one refresher at a time, kept encrypted.

Who finds a token due takes the row for :data:`REFRESH_SECONDS` and fetches; the others go on with
the old one while it holds, or wait. Some channels end the old token when a new one is fetched, so
two refreshers would take turns in ending each other's.
"""

from __future__ import annotations

import logging
import time
from uuid import uuid4

from ironbeat import connection, decrypt, encrypt
from ironbeat.workloads.assistant.accounts import Account
from ironbeat.workloads.assistant.channels import CHANNELS, calls
from ironbeat.workloads.assistant.channels.contract import TryLater, Undelivered
from ironbeat.workloads.assistant.store import fetch, fetch_all

logger = logging.getLogger(__name__)

# A token is fetched anew when it holds for less than this, or than half its lifetime.
MARGIN_SECONDS = 600.0
# A fetch that takes longer is given up by the others.
REFRESH_SECONDS = 25.0
# What holds for less than this may end on the way.
LEAST_SECONDS = 5.0
_POLL_SECONDS = 0.1


def current(account: Account, *, not_version: int | None = None) -> tuple[str, int]:
    """A token that holds, with its version; ``not_version`` is one that the channel rejected.

    Raises :class:`Undelivered` when the channel gives none.
    """
    deadline = time.monotonic() + REFRESH_SECONDS
    while True:
        with connection() as opened:
            row = fetch(opened, "token", account_id=account.id)
        held = None
        if row is not None and row["token"] and row["version"] != not_version:
            holds, lifetime = float(row["holds_for"]), float(row["lifetime_seconds"])
            if holds > LEAST_SECONDS:
                held = decrypt(row["token"]), row["version"]
                if row["refreshing"] or holds > _due_at(lifetime):
                    return held
        try:
            found = refresh(account, bad_version=not_version)
        except Undelivered:
            # What is about to end has not ended.
            if held is None:
                raise
            return held
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise TryLater("another process is fetching the access token, and takes long")
        time.sleep(_POLL_SECONDS)


def refresh(account: Account, *, bad_version: int | None = None) -> tuple[str, int] | None:
    """Fetch a token if it is due, or if ``bad_version`` is the present one.

    ``None``: it is not due, or another process is at it. Raises :class:`Undelivered`.
    """
    holder = uuid4().hex
    with connection() as opened:
        taken = fetch(
            opened,
            "begin_refresh",
            account_id=account.id,
            holder=holder,
            seconds=REFRESH_SECONDS,
            margin=MARGIN_SECONDS,
            bad_version=bad_version,
        )
    if taken is None:
        return None
    try:
        token = CHANNELS[account.channel].fetch_token(calls.client(), account)
    except BaseException as error:
        reason = str(error) if isinstance(error, Undelivered) else type(error).__name__
        with connection() as opened:
            fetch_all(
                opened, "fail_refresh", account_id=account.id, holder=holder, error=reason[:500]
            )
        logger.warning("no access token for %s %s: %s", account.channel, account.app_id, reason)
        raise
    with connection() as opened:
        row = fetch(
            opened,
            "end_refresh",
            account_id=account.id,
            holder=holder,
            token=encrypt(token.value),
            seconds=token.seconds,
        )
    # Without a row somebody else took over meanwhile; what was fetched holds all the same.
    return token.value, row["version"] if row is not None else 0


def _due_at(lifetime: float) -> float:
    return min(MARGIN_SECONDS, lifetime / 2)
