"""Errors as ``application/problem+json`` (RFC 9457): what is wrong, where, and what to do."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from ironbeat.capacity import QueueFull
from ironbeat.runs.model import LedgerUnavailable, RunNotFound
from ironbeat.workload import WorkloadError

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Request too large",
    415: "Unsupported media type",
    422: "Invalid input",
    429: "Too many",
    500: "Internal error",
    503: "Unavailable",
}


class Problem(Exception):
    """An expected error of a request. ``errors`` tell place by place what is wrong."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[dict[str, Any]] = (),
        headers: dict[str, str] | None = None,
    ):
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers


def response(
    status: int,
    detail: str,
    errors: Sequence[dict[str, Any]] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """The answer that tells of a problem."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = list(errors)
    return JSONResponse(body, status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> JSONResponse:
        return response(error.status, error.detail, error.errors, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {"where": ".".join(map(str, item["loc"])), "message": item["msg"]}
            for item in error.errors()
        ]
        told = "; ".join(f"{item['where']}: {item['message']}" for item in errors[:3])
        status = 400 if any(item["type"] == "json_invalid" for item in error.errors()) else 422
        return response(status, told, errors)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return response(error.status_code, str(error.detail), headers=headers)

    @app.exception_handler(RunNotFound)
    async def no_run(_: Request, error: RunNotFound) -> JSONResponse:
        return response(404, str(error).strip("'\""))

    @app.exception_handler(QueueFull)
    async def queue_full(_: Request, error: QueueFull) -> JSONResponse:
        return response(429, str(error), headers={"Retry-After": "5"})

    @app.exception_handler(LedgerUnavailable)
    async def no_ledger(_: Request, error: LedgerUnavailable) -> JSONResponse:
        logger.warning("request refused: %s", error)
        return response(503, "PostgreSQL cannot be reached; nothing was changed.")

    @app.exception_handler(psycopg.OperationalError)
    @app.exception_handler(psycopg.InterfaceError)
    @app.exception_handler(SQLAlchemyError)
    async def no_database(_: Request, error: Exception) -> JSONResponse:
        logger.warning("request refused: %s", error)
        return response(503, "PostgreSQL cannot be reached, or does not answer in time.")

    @app.exception_handler(psycopg.errors.UndefinedTable)
    @app.exception_handler(psycopg.errors.InvalidSchemaName)
    async def no_tables(_: Request, error: Exception) -> JSONResponse:
        return response(503, "The database is not migrated: run `ironbeat db upgrade`.")

    @app.exception_handler(WorkloadError)
    async def no_workload(_: Request, error: WorkloadError) -> JSONResponse:
        logger.error("request refused: %s", error)
        return response(503, str(error))

    @app.exception_handler(RecursionError)
    async def nested(_: Request, error: RecursionError) -> JSONResponse:
        return response(400, "the JSON is nested too deeply")

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        # Starlette logs it with its traceback; the caller learns nothing of the inside.
        return response(500, "An error that is not yours; it is in the API's log.")
