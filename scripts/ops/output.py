"""How tasks print and end: tables for people, one JSON document for programs, an exit status."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ParamSpec

from invoke.exceptions import Exit

from scripts.ops.failures import OpsError

P = ParamSpec("P")


def ends(body: Callable[P, int]) -> Callable[P, None]:
    """Turn a task's exit status, or the expected error that it raises, into the end of ``fab``."""

    @functools.wraps(body)
    def task(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            status = body(*arguments, **options)
        except OpsError as error:
            tell(error, as_json=bool(options.get("json")))
            status = error.status
        except KeyboardInterrupt:
            raise Exit("interrupted", code=130) from None
        except BrokenPipeError:
            # Whoever read our output has seen enough.
            sys.stderr.close()
            status = 0
        if status:
            raise Exit(code=status)

    return task


def tell(error: OpsError, *, as_json: bool) -> None:
    """Say on standard error what is wrong and what to do next."""
    if as_json:
        document = {"error": error.message, "hint": error.hint, "status": error.status}
        print(json.dumps(document, ensure_ascii=False), file=sys.stderr)
        return
    print(f"fab: {error.message}", file=sys.stderr)
    if error.hint:
        print(error.hint, file=sys.stderr)


def document(value: Any) -> None:
    """Print ``value`` as one JSON document."""
    print(json.dumps(as_plain(value), ensure_ascii=False, indent=2))


def as_plain(value: Any) -> Any:
    """``value`` as what JSON can say."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [as_plain(item) for item in value]
    return value


def hear(text: str) -> None:
    """Show at once what is said on the way to an answer, on standard error."""
    sys.stderr.write(text)
    sys.stderr.flush()


def lines(found: Iterable[str]) -> None:
    """Print lines."""
    for line in found:
        print(line)
