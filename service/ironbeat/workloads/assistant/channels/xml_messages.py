"""What WeChat's official accounts and WeCom have in common: XML messages, plain or in envelopes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from ironbeat.workloads.assistant.channels import envelope, reading
from ironbeat.workloads.assistant.channels.contract import (
    Rejected,
    Reply,
    TokenRejected,
    TryLater,
)
from ironbeat.workloads.assistant.incoming import Incoming, Request, forged, instant, malformed

# A request that was signed longer ago is a replay: the channels repeat one within seconds.
WINDOW_SECONDS = 600

# Events that are worth a greeting; all others only happen.
GREETED_EVENTS = ("subscribe", "enter_agent")
GREETING = "/help"

# errcode -> what it means, the same for both.
TOKEN_ENDED = (40001, 40014, 41001, 42001)
BUSY = (-1, 45009, 45011, 45033, 50005)
BUSY_SECONDS = {45009: 60.0, 45011: 60.0, 45033: 2.0}


def parameter(request: Request, name: str) -> str:
    """A query parameter that must be there. Raises :class:`Refusal`."""
    value = request.query.get(name, "")
    if not value or len(value) > 1024:
        raise forged(f"the query parameter {name} is missing")
    return reading.text(value)


def verify(request: Request, given: str, token: str, *covered: str) -> None:
    """Check a signature over the token, the request's time and nonce, and what else it covers."""
    timestamp, nonce = parameter(request, "timestamp"), parameter(request, "nonce")
    if not envelope.signed(given, token, timestamp, nonce, *covered):
        raise forged("the signature is wrong")
    signed_at = reading.digits(timestamp, "timestamp")
    if abs(request.now - signed_at) > WINDOW_SECONDS:
        raise forged(f"the request was signed more than {WINDOW_SECONDS} s ago, or ahead")


def opened(request: Request, token: str, aes_key: str, receiver: str) -> bytes:
    """The message inside a request whose body is an envelope."""
    sealed = reading.xml_fields(request.body).get("Encrypt", "")
    return opened_text(request, sealed, token, aes_key, receiver)


def opened_text(request: Request, sealed: str, token: str, aes_key: str, receiver: str) -> bytes:
    """What an envelope holds, whose signature is a query parameter."""
    verify(request, parameter(request, "msg_signature"), token, sealed)
    try:
        return envelope.unseal(envelope.key_of(aes_key), receiver, sealed)
    except envelope.BadEnvelope as error:
        raise forged(str(error)) from None


def incoming(
    body: bytes, reply_to: Mapping[str, Any], *, nonce: str | None = None
) -> Incoming | None:
    """The message in a plain XML body."""
    fields = reading.xml_fields(body)
    kind = reading.string(fields, "MsgType", longest=32).lower()
    sender = reading.string(fields, "FromUserName")
    created = reading.digits(fields.get("CreateTime", ""), "CreateTime")
    content = ""
    if kind == "event":
        event = reading.string(fields, "Event", longest=64)
        if event.lower() not in GREETED_EVENTS:
            return None
        content, message_id = GREETING, f"{sender}:{created}:{event}"
    else:
        message_id = str(reading.digits(fields.get("MsgId", ""), "MsgId"))
        if kind == "text":
            content = fields.get("Content", "")
            if not content.strip():
                raise malformed("a text message without Content")
    return Incoming(
        message_id=message_id,
        conversation_id=sender,
        user_id=sender,
        content=content.strip(),
        message_type=kind,
        sent_at=instant(created),
        reply_to={
            **reply_to,
            "user": sender,
            "self": reading.string(fields, "ToUserName"),
        },
        raw_data=fields,
        nonce=nonce,
    )


def reply_xml(reply_to: Mapping[str, Any], text: str, now: float) -> bytes:
    """A passive reply. The text is escaped, not put into CDATA, which a text could close."""
    return (
        f"<xml><ToUserName>{escape(str(reply_to['user']))}</ToUserName>"
        f"<FromUserName>{escape(str(reply_to['self']))}</FromUserName>"
        f"<CreateTime>{int(now)}</CreateTime><MsgType>text</MsgType>"
        f"<Content>{escape(_printable(text))}</Content></xml>"
    ).encode()


def sealed_reply(message: bytes, token: str, aes_key: str, receiver: str, now: float) -> Reply:
    """A passive reply in an envelope."""
    sealed = envelope.seal(envelope.key_of(aes_key), receiver, message)
    timestamp, nonce = str(int(now)), secrets.token_hex(8)
    signed = envelope.signature(token, timestamp, nonce, sealed)
    body = (
        f"<xml><Encrypt>{sealed}</Encrypt><MsgSignature>{signed}</MsgSignature>"
        f"<TimeStamp>{timestamp}</TimeStamp><Nonce>{nonce}</Nonce></xml>"
    )
    return Reply(body.encode(), "application/xml")


def check(answer: Mapping[str, Any]) -> None:
    """Raise what an API's ``errcode`` means, unless it means that all is well."""
    code = answer.get("errcode", 0)
    if code == 0:
        return
    told = f"{code}: {str(answer.get('errmsg', ''))[:200]}"
    if code in TOKEN_ENDED:
        raise TokenRejected(told)
    if code in BUSY:
        raise TryLater(told, BUSY_SECONDS.get(code))
    raise Rejected(told)


def _printable(text: str) -> str:
    """What XML can hold: no control characters but tab and line ends."""
    return "".join(each for each in text if each >= " " or each in "\t\n\r")
