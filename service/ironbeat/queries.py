"""Named SQL: each file holds queries under ``-- name: title`` lines, loaded by name."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString, cast

_HEADING = re.compile(r"^-- (?P<name>[a-z_]+): ", re.MULTILINE)


@cache
def load(package: str, filename: str) -> dict[str, LiteralString]:
    """The queries of one SQL file in a package, by name, each with its comment.

    The text comes from the package itself, never from input, hence the type.
    """
    text = files(package).joinpath(filename).read_text(encoding="utf-8")
    headings = list(_HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return {
        heading["name"]: cast("LiteralString", text[heading.start() : end].strip())
        for heading, end in zip(headings, ends, strict=True)
    }
