"""The webhooks' routes, and what an operator asks of the assistant.

A webhook guards itself: its channel's signature is the proof; alerts have a token of their own. All
else wants the API's token.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Response
from fastapi import Request as HttpRequest
from starlette.concurrency import run_in_threadpool

from ironbeat import OWN_GUARD, TAKES_DATA, SealingError, connection
from ironbeat.workloads.assistant import alerts, reception
from ironbeat.workloads.assistant.channels.contract import Reply
from ironbeat.workloads.assistant.incoming import Refusal, Request
from ironbeat.workloads.assistant.store import fetch_all
from ironbeat.workloads.assistant.tools import registered

router = APIRouter(tags=["assistant"])

ChannelName = Literal["wechat", "wecom", "dingtalk", "telegram"]
AppId = Annotated[str, Path(min_length=1, max_length=128, description="The channel's app.")]
ADDRESS = "/webhook/{channel}/{app_id}"


@router.get(ADDRESS, tags=[OWN_GUARD], response_class=Response)
async def check_address(channel: ChannelName, app_id: AppId, request: HttpRequest) -> Response:
    """The check by which WeChat and WeCom confirm this address: the echo comes back."""
    asked = Request(dict(request.query_params), dict(request.headers), b"", time.time())
    return await _answered(lambda: reception.challenge(channel, app_id, asked))


@router.post(ADDRESS, tags=[OWN_GUARD, TAKES_DATA], response_class=Response)
async def webhook(channel: ChannelName, app_id: AppId, request: HttpRequest) -> Response:
    """A message of a channel, as the channel posts and signs it."""
    body = await _body(request)
    asked = Request(dict(request.query_params), dict(request.headers), body, time.time())
    return await _answered(lambda: reception.receive(channel, app_id, asked))


@router.post("/alerts/{channel}/{app_id}", tags=[OWN_GUARD, TAKES_DATA])
async def alerts_for_a_chat(
    channel: ChannelName,
    app_id: AppId,
    request: HttpRequest,
    to: Annotated[str | None, Query(min_length=1, max_length=128, description="Whom to tell.")] = (
        None
    ),
) -> dict[str, str]:
    """Tell a chat of alerts, as Alertmanager posts them; guarded by the token for alerts."""
    try:
        alerts.authorise(request.headers.get("authorization"))
        body = await _body(request)
        return {"alerts": await run_in_threadpool(alerts.take, channel, app_id, to, body)}
    except Refusal as refusal:
        raise HTTPException(refusal.status, refusal.detail) from None
    except SealingError as error:
        raise HTTPException(503, str(error)) from None


@router.get("/tools")
def tools() -> list[dict[str, Any]]:
    """The registered tools with their parameters and the permission that they need."""
    return [
        {
            "name": each.name,
            "description": each.description,
            "permission": each.permission,
            "seconds": each.seconds,
            "long": each.long,
            "parameters": each.parameters.model_json_schema(),
        }
        for each in registered().values()
    ]


@router.get("/answers")
def answers(
    state: Literal["pending", "sending", "confirmed", "returned", "unknown", "failed"]
    | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """The latest answers and what became of them, without their text."""
    with connection() as opened:
        return fetch_all(opened, "answers_listed", state=state, limit=limit)


async def _body(request: HttpRequest) -> bytes:
    """The body, read no further than a webhook may be large."""
    received = bytearray()
    async for piece in request.stream():
        received += piece
        if len(received) > reception.MOST_BYTES:
            raise HTTPException(413, f"A webhook may have {reception.MOST_BYTES} bytes.")
    return bytes(received)


async def _answered(work: Any) -> Response:
    try:
        reply: Reply = await run_in_threadpool(work)
    except Refusal as refusal:
        raise HTTPException(refusal.status, refusal.detail) from None
    except SealingError as error:
        raise HTTPException(503, str(error)) from None
    return Response(reply.body, media_type=reply.media_type)
