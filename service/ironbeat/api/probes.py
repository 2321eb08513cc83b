"""``/health`` and ``/metrics``, for load balancers and Prometheus."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel

from ironbeat.api.parts import Parts, parts_of
from ironbeat.observability.metrics import get_metrics
from ironbeat.watch.exposition import DEADLINE_SECONDS, Exposition

router = APIRouter(tags=["probes"])


class HealthBody(BaseModel):
    """The state of the suite; each check begins with ``ok`` when it is well."""

    status: Literal["healthy", "degraded", "unhealthy"]
    checks: dict[str, str]


@router.get("/health", response_model=HealthBody, responses={503: {"model": HealthBody}})
async def health(parts: Annotated[Parts, Depends(parts_of)]) -> Any:
    """Whether the suite works: 200 when healthy or degraded (fallback active), 503 when unhealthy.

    Answers in under a second whatever hangs.
    """
    found = await parts.health.acheck()
    return JSONResponse(found.body(), found.http_status, headers={"Cache-Control": "no-store"})


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, parts: Annotated[Parts, Depends(parts_of)]) -> Response:
    """The suite's figures as Prometheus text."""
    registries = request.app.state.registries

    def expose() -> bytes:
        return b"".join(generate_latest(registry) for registry in registries())

    body = await parts.shared("metrics", expose, DEADLINE_SECONDS + 2)
    return Response(body, media_type=CONTENT_TYPE_LATEST)


def registries_of(exposition: Exposition) -> Any:
    """What ``/metrics`` exposes: the suite's figures, then those of the answering processes."""
    suite = CollectorRegistry()
    suite.register(exposition)
    return lambda: (suite, get_metrics().registry())
