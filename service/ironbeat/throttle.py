"""How often, and how many at a time, runs of a task may go, over all workers together. Pure.

A task declares it, ``@shared_task(throttle=Throttle(rate="100/m", concurrency=5))``, or the setting
``throttles`` does, which wins. Celery's own ``rate_limit`` holds for each worker by itself.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAME_CHARACTERS = 200

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(\d*)\s*([smhd])")
_FIELDS = ("rate", "concurrency", "key", "burst", "name")


class ThrottleError(ValueError):
    """A throttle that cannot hold as it is written; the message says what to write instead."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """A limit that holds over all workers together.

    ``rate``: starts in a time, ``"100/m"``, ``"10/s"``, ``"5/30s"``; they are spread evenly, and
    ``burst`` of them may come at once after a pause. ``concurrency``: how many may run at the same
    time. ``key`` names a parameter of the task: then each of its values has limits of its own.
    ``name`` makes tasks share limits; by default each task has its own.

    Raises :class:`ThrottleError`.
    """

    rate: str | None = None
    concurrency: int | None = None
    key: str | None = None
    burst: int = 1
    name: str | None = None

    def __post_init__(self) -> None:
        if self.rate is None and self.concurrency is None:
            raise ThrottleError("a throttle needs a rate ('100/m') or a concurrency (5), or both")
        if self.rate is not None:
            _pace(self.rate)
        if self.concurrency is not None and self.concurrency < 1:
            raise ThrottleError(f"concurrency must be at least 1, not {self.concurrency}")
        if self.burst < 1:
            raise ThrottleError(f"burst must be at least 1, not {self.burst}")

    @property
    def pace(self) -> float | None:
        """Seconds between two starts; ``None`` without a rate."""
        return None if self.rate is None else _pace(self.rate)

    def of(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The name under which a call of ``task`` is counted.

        Raises :class:`ThrottleError` when the task has no parameter of the key's name.
        """
        name = self.name or task.name
        if self.key is not None:
            name = f"{name}:{_argument(task, self.key, args, kwargs)}"
        if len(name) > NAME_CHARACTERS:
            digest = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()
            name = f"{name[: NAME_CHARACTERS - 65]}~{digest}"
        return name.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def parse(text: str) -> dict[str, Throttle]:
    """The throttles in a setting, by task.

    ``TASK=PART,PART;TASK=…`` with the parts ``100/m`` (or ``rate:100/m``), ``concurrency:5``,
    ``key:customer_id``, ``burst:10`` and ``name:mail``. Raises :class:`ThrottleError`.
    """
    found: dict[str, Throttle] = {}
    for entry in filter(None, (each.strip() for each in text.split(";"))):
        task, equals, parts = entry.partition("=")
        if not (equals and task.strip() and parts.strip()):
            raise ThrottleError(
                f"{entry!r} is not TASK=PART,PART; e.g. app.mail=100/m,concurrency:5"
            )
        found[task.strip()] = _parsed(parts)
    return found


def _parsed(parts: str) -> Throttle:
    values: dict[str, Any] = {}
    for part in filter(None, (each.strip() for each in parts.split(","))):
        field, colon, value = part.partition(":")
        if not colon:
            field, value = "rate", part
        field, value = field.strip(), value.strip()
        if field not in _FIELDS or not value:
            raise ThrottleError(
                f"{part!r}: a part is one of {', '.join(_FIELDS)}, as concurrency:5"
            )
        if field in ("concurrency", "burst"):
            if not value.isdigit():
                raise ThrottleError(f"{part!r}: {field} is a whole number")
            values[field] = int(value)
        else:
            values[field] = value
    return Throttle(**values)


def _pace(rate: str) -> float:
    match = _RATE.fullmatch(rate.strip())
    if match is None or float(match[1]) <= 0 or match[2] == "0":
        raise ThrottleError(f"rate {rate!r}: write 100/m, 10/s, 2/h or 5/30s")
    return int(match[2] or 1) * _SECONDS[match[3]] / float(match[1])


def _argument(task: Any, key: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    signature = inspect.signature(task.run)
    if key not in signature.parameters:
        raise ThrottleError(
            f"the throttle of {task.name} has the key {key!r}, and {task.name}{signature} has no "
            "such parameter"
        )
    bound = signature.bind_partial(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments.get(key)
