"""Alerts for a chat: Alertmanager's webhook, told through an app of a channel.

An alert may say that no worker is there, so it cannot wait for one: it is sent from the process
that takes it. Before that a run is committed that sends it a little later; it is cancelled once the
channel has taken the message. So what the process cannot deliver, or dies with, a worker does.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from typing import Any

import orjson

from ironbeat import TaskManager, get_settings
from ironbeat.workloads.assistant import accounts, delivery
from ironbeat.workloads.assistant.channels import CHANNELS
from ironbeat.workloads.assistant.incoming import Refusal

logger = logging.getLogger(__name__)

TASK = "send_alert"
# The run begins so much later, if it has not been cancelled: longer than a call to a channel takes.
LATER_SECONDS = 20.0
# An alert that nobody could be told of for so long is told by a newer one.
EXPIRES_SECONDS = 4 * 3600.0
MOST_ALERTS = 10
LONGEST_FIELD = 500
FIRING, ENDED = "\N{LARGE RED CIRCLE}", "\N{LARGE GREEN CIRCLE}"


def authorise(header: str | None) -> None:
    """Raise :class:`Refusal` unless the request carries the token for alerts."""
    token = get_settings().alerts_token
    wanted = token.get_secret_value().encode() if token is not None else b""
    scheme, _, offered = (header or "").partition(" ")
    given = offered.strip().encode() if scheme.lower() == "bearer" else b""
    if not wanted:
        raise Refusal(401, "no token for alerts is set: IRONBEAT_ALERTS_TOKEN")
    if not hmac.compare_digest(given, wanted):
        raise Refusal(401, "send the token for alerts: `Authorization: Bearer TOKEN`")


def recipient(channel: str, app_id: str, to: str | None) -> dict[str, Any]:
    """Whom a channel is to tell, as it wants it. Raises :class:`Refusal` where that is missing."""
    if channel == "dingtalk":
        # A group's robot knows its group; the app itself tells one of the staff.
        return {"staff": to, "robot": app_id} if to else {}
    if not to:
        raise Refusal(400, f"say whom {channel} is to tell: ?to=… ({_RECIPIENTS[channel]})")
    if channel == "telegram":
        return {"chat_id": int(to) if to.lstrip("-").isdecimal() else to}
    return {"user": to}


_RECIPIENTS = {
    "telegram": "the chat's id",
    "wechat": "the follower's open id",
    "wecom": "the member's user id",
}


def text_of(body: bytes) -> str:
    """What is said of Alertmanager's notification. Raises :class:`Refusal` for anything else."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refusal(400, "the body is no JSON") from None
    alerts = given.get("alerts") if isinstance(given, dict) else None
    if not isinstance(alerts, list) or not alerts:
        raise Refusal(400, "this is not what Alertmanager sends: `alerts` has to be a list")
    if not all(isinstance(each, dict) for each in alerts):
        raise Refusal(400, "each of `alerts` has to be an object")
    said = [_said(each) for each in alerts[:MOST_ALERTS]]
    if len(alerts) > MOST_ALERTS:
        said.append(f"… and {len(alerts) - MOST_ALERTS} more")
    return "\n\n".join(said)


def _said(alert: Mapping[str, Any]) -> str:
    labels, about = _texts(alert.get("labels")), _texts(alert.get("annotations"))
    name = labels.get("alertname", "alert")
    summary = about.get("summary", "")
    if alert.get("status") == "resolved":
        return f"{ENDED} ended: {name}\n{summary}".rstrip()
    lines = [
        f"{FIRING} {labels.get('severity', 'alert')}: {name}",
        summary,
        about.get("description", ""),
        f"since {str(alert.get('startsAt', ''))[:19].replace('T', ' ')} UTC",
        about.get("runbook", ""),
    ]
    return "\n".join(line for line in lines if line)


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {str(key): str(item)[:LONGEST_FIELD] for key, item in value.items()}


def take(channel: str, app_id: str, to: str | None, body: bytes) -> str:
    """Tell a chat, now or a little later; returns ``sent`` or ``later``.

    Raises :class:`Refusal` for a request that makes no sense, and what the platform raises when
    nothing could be committed and nothing sent.
    """
    account = accounts.find(channel, app_id)
    if account is None:
        raise Refusal(404, f"there is no enabled app {app_id!r} of {channel}")
    reply_to = recipient(channel, app_id, to)
    text = delivery.parts_of(text_of(body), CHANNELS[channel].longest_bytes)[0]
    manager = TaskManager()
    run = manager.submit(
        TASK,
        [channel, app_id, reply_to, text],
        countdown=LATER_SECONDS,
        expires=EXPIRES_SECONDS,
    )
    outcome = delivery.send(account, reply_to, delivery.Attempt(text))
    if outcome.state != "confirmed":
        logger.warning("alert for %s %s is sent later: %s", channel, app_id, outcome.error)
        return "later"
    manager.cancel(run)
    return "sent"
