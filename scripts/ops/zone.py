"""The time zone that the suite is set to, in which times are typed and shown."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def zone_of(facts: Mapping[str, Any]) -> tzinfo:
    """The zone among a host's facts; UTC where it may not read the suite's settings."""
    name = facts.get("settings", {}).get("timezone")
    try:
        return ZoneInfo(name) if name else UTC
    except (ZoneInfoNotFoundError, ValueError):
        return UTC
