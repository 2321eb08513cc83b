"""The HTTP face of the suite; it holds no logic."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ironbeat.settings import Settings

__all__ = ["create_api"]


def create_api(settings: Settings | None = None) -> FastAPI:
    """The application; see :func:`ironbeat.api.application.create_api`."""
    from ironbeat.api.application import create_api

    return create_api(settings)
