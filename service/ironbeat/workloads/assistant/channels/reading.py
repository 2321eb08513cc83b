"""Strict reading of what strangers send: JSON and XML, bounded in depth, without ambiguity.

Python's own parser takes the last of two equal keys, infinite numbers and half surrogate pairs;
another reader of the same bytes may take something else. Here they are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from ironbeat.workloads.assistant.incoming import malformed

DEEPEST = 32
LONGEST_TEXT = 65_536


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in ``body``. Raises :class:`Refusal` for anything else."""
    try:
        found = json.loads(
            body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise malformed(
            "the body is no JSON, or has a key twice, or is nested too deeply"
        ) from None
    if not isinstance(found, dict):
        raise malformed(f"the body is a JSON {type(found).__name__}, not an object")
    _check(found, 0)
    return found


def xml_fields(body: bytes) -> dict[str, str]:
    """The texts of a flat ``<xml>`` document by name. Raises :class:`Refusal`.

    Entities and document types are refused; what is nested (items of a picture) is left out.
    """
    try:
        root: Element = ElementTree.fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError):
        raise malformed("the body is no XML, or has a document type or entities") from None
    if root.tag != "xml":
        raise malformed("the root of the XML is not <xml>")
    fields: dict[str, str] = {}
    for child in root:
        if len(child):
            continue
        if child.tag in fields:
            raise malformed("the XML has an element twice")
        fields[str(child.tag)] = text(child.text or "")
    return fields


def text(value: Any) -> str:
    """A text that PostgreSQL and UTF-8 can hold. Raises :class:`Refusal` for anything else."""
    if not isinstance(value, str):
        raise malformed(f"a text was expected, not {type(value).__name__}")
    if len(value) > LONGEST_TEXT:
        raise malformed(f"a text is longer than {LONGEST_TEXT} characters")
    if "\x00" in value:
        raise malformed("a text holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise malformed("a text holds half of a surrogate pair") from None
    return value


def string(fields: Mapping[str, Any], name: str, *, longest: int = 256) -> str:
    """A field that must be a text of 1 to ``longest`` characters."""
    value = fields.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise malformed(f"{name} must be a text of 1 to {longest} characters")
    return value


def integer(fields: Mapping[str, Any], name: str) -> int:
    """A field that must be a whole number that fits a 64-bit column."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise malformed(f"{name} must be a whole number")
    return value


def digits(value: str, name: str) -> int:
    """A text of 1 to 19 decimal digits as a number."""
    if not (1 <= len(value) <= 19 and value.isascii() and value.isdigit()):
        raise malformed(f"{name} must be a number")
    return int(value)


def mapping(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A field that must be a JSON object."""
    value = fields.get(name)
    if not isinstance(value, dict):
        raise malformed(f"{name} must be an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _check(value: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise malformed(f"the JSON is nested more than {DEEPEST} levels deep")
    if isinstance(value, str):
        text(value)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise malformed("a number does not fit into 64 bits")
    elif isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise malformed("a number is too large")
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            text(key)
            _check(item, depth + 1)
