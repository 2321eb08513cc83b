"""What a front end is given: the hot questions as one document, made once and served many times.

It lies in Redis, and in the database behind it: Redis may be emptied or away. A refresh writes the
new document whole, first to the database, then to Redis, so that a reader sees the old or the new
one. Its ETag is made of its content: what has not changed need not be fetched again.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import redis
import structlog

from ironbeat import get_settings
from ironbeat.workloads.analytics.database import first, one, rows, transaction, written
from ironbeat.workloads.analytics.ranking import Standing, standing

log = structlog.get_logger()

# Refreshed daily: stays through one missed day, and is dropped by the clean-up after that.
KEPT_SECONDS = 2 * 24 * 3600

QUESTIONS = 100
EXAMPLES = 3
SHOWN_DAYS = 28

REDIS_PREFIX = "ironbeat:analytics:"
REDIS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Payload:
    """A document with its ETag. ``source`` is where it came from: ``redis`` or ``database``."""

    etag: str
    body: str
    source: str


def name_of(role: str, day: date | None) -> str:
    """The payload's name; without a day, the current one."""
    return f"questions:{role}" + (f":{day.isoformat()}" if day else "")


def refresh(*, role: str = "user", day: date | None = None) -> dict[str, Any]:
    """Make the payload as of ``day`` (default: today) anew, keep it, and return it."""
    body = build(role=role, day=day)
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    etag = hashlib.sha256(text.encode()).hexdigest()[:32]
    name = name_of(role, day)
    with transaction() as cursor:
        written(cursor, "keep_payload", name=name, etag=etag, body=text, seconds=KEPT_SECONDS)
    _to_redis(name, etag, text)
    return body


def read(*, role: str = "user", day: date | None = None) -> Payload | None:
    """The payload as it was last made; from the database where Redis has none."""
    name = name_of(role, day)
    if found := _from_redis(name):
        return found
    with transaction() as cursor:
        row = first(cursor, "payload", name=name)
    if row is None:
        return None
    # What is past its time is better than nothing, but not to be spread again.
    if not row["expired"]:
        _to_redis(name, row["etag"], row["body"])
    return Payload(row["etag"], row["body"], "database")


def build(*, role: str, day: date | None) -> dict[str, Any]:
    """The document: questions as of the end of ``day``, the hottest first."""
    zone = get_settings().timezone
    with transaction() as cursor:
        today = day or one(cursor, "today", zone=zone)["day"]
        counts: dict[int, dict[date, int]] = defaultdict(dict)
        for row in rows(cursor, "daily", role=role, day=today):
            counts[row["group_id"]][row["day"]] = row["messages"]
        stands = {group: standing(days, today) for group, days in counts.items()}
        order = sorted(stands, key=lambda group: (-stands[group].hotness, group))[:QUESTIONS]
        described = {row["id"]: row for row in rows(cursor, "described", groups=order)}
        examples: dict[int, list[str]] = defaultdict(list)
        for row in rows(cursor, "examples", groups=order, role=role, number=EXAMPLES):
            examples[row["group_id"]].append(row["content"])
        totals = one(cursor, "totals", role=role, day=today, zone=zone)
    return {
        "role": role,
        "date": today.isoformat(),
        "timezone": zone,
        "groups": len(counts),
        **totals,
        "questions": [
            _question(place, described[group], counts[group], stands[group], examples[group], today)
            for place, group in enumerate(order, start=1)
        ],
    }


def _question(
    place: int,
    row: dict[str, Any],
    counts: dict[date, int],
    stands: Standing,
    examples: list[str],
    today: date,
) -> dict[str, Any]:
    days = [today - timedelta(days=back) for back in range(SHOWN_DAYS - 1, -1, -1)]
    return {
        "rank": place,
        "id": row["id"],
        "label": row["label"],
        "keywords": row["keywords"],
        "question": row["representative"],
        "examples": examples,
        "texts": row["texts"],
        "messages": sum(counts.values()),
        "hotness": round(stands.hotness, 2),
        "trend": stands.trend,
        "recent": stands.recent,
        "previous": stands.previous,
        "change": round(stands.change, 2),
        "first_day": min(counts).isoformat(),
        "last_day": max(counts).isoformat(),
        "days": [counts.get(day, 0) for day in days],
    }


def clean_up() -> dict[str, int]:
    """Drop payloads whose time is over, in both places; how many of each."""
    with transaction() as cursor:
        dropped = [row["name"] for row in rows(cursor, "drop_payloads")]
        kept = {row["name"] for row in rows(cursor, "payload_names")}
    strays = 0
    with _redis() as client:
        if client is not None:
            # Redis drops by itself what has its time there; here goes what the database has not.
            for key in client.scan_iter(match=f"{REDIS_PREFIX}*", count=500):
                if key.decode().removeprefix(REDIS_PREFIX) not in kept:
                    strays += client.delete(key)
    return {"dropped": len(dropped), "dropped_from_redis": strays, "kept": len(kept)}


@contextmanager
def _redis() -> Iterator[redis.Redis | None]:
    """The Redis that keeps results, or nothing where there is none; its errors end the block."""
    settings = get_settings()
    url = settings.result_backend.get_secret_value()
    if not settings.use_redis or not url.startswith(("redis://", "rediss://")):
        yield None
        return
    client = redis.Redis.from_url(
        url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS
    )
    try:
        yield client
    except redis.RedisError as error:
        log.warning("the cache in Redis cannot be used", error=str(error))
    finally:
        client.close()


def _to_redis(name: str, etag: str, text: str) -> None:
    with _redis() as client:
        if client is not None:
            # One value: an ETag never stands beside another's document.
            client.set(REDIS_PREFIX + name, f"{etag}\n{text}".encode(), ex=KEPT_SECONDS)


def _from_redis(name: str) -> Payload | None:
    with _redis() as client:
        if client is not None and (value := client.get(REDIS_PREFIX + name)):
            etag, _, text = bytes(value).decode().partition("\n")  # type: ignore[arg-type]
            return Payload(etag, text, "redis")
    return None
