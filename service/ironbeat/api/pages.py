"""The documentation page: OpenAPI as plain HTML, without script or outside request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
summary { cursor: pointer; } code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
details { border-top: 1px solid #8884; padding: .4rem 0; } table { border-collapse: collapse; }
th, td { text-align: left; padding: .1rem 1rem .1rem 0; vertical-align: top; }
pre { overflow-x: auto; background: #8881; padding: .6rem; }
"""


def documentation(schema: Mapping[str, Any]) -> str:
    """The page for an OpenAPI ``schema``."""
    info = schema["info"]
    groups: dict[str, list[str]] = {}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_operation(method, path, operation, schema))
    sections = "".join(
        f"<h2>{escape(tag)}</h2>{''.join(operations)}" for tag, operations in groups.items()
    )
    title = escape(f"{info['title']} {info['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{title}</h1><p>{escape(info.get('description', ''))}</p>"
        "<p>The same for programs: <a href='openapi.json'><code>openapi.json</code></a>.</p>"
        f"{sections}</body></html>"
    )


def _operation(
    method: str, path: str, operation: Mapping[str, Any], schema: Mapping[str, Any]
) -> str:
    rows = [
        (p["name"], p["in"], _type(p.get("schema", {})), p.get("description", ""))
        for p in operation.get("parameters", ())
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    described = _resolved(body.get("schema", {}), schema)
    rows += [
        (name, "body", _type(field), field.get("description", ""))
        for name, field in described.get("properties", {}).items()
    ]
    about = operation.get("description") or operation.get("summary") or ""
    if described.get("description"):
        about = f"{about}\n\n{described['description']}"
    paragraphs = "".join(f"<p>{escape(part)}</p>" for part in about.split("\n\n") if part)
    return (
        f"<details><summary><code>{escape(method.upper())} {escape(path)}</code> "
        f"{escape(about.partition('.')[0])}</summary>{paragraphs}{_table(rows)}</details>"
    )


def _table(rows: Iterable[tuple[str, str, str, str]]) -> str:
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(place)}</td>"
        f"<td>{escape(kind)}</td><td>{escape(text)}</td></tr>"
        for name, place, kind, text in rows
    )
    return f"<table>{cells}</table>" if cells else ""


def _resolved(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = part.get("$ref", "")
    if not reference:
        return part
    found: Any = schema
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    resolved: Mapping[str, Any] = found
    return resolved


def _type(part: Mapping[str, Any]) -> str:
    if "$ref" in part:
        return str(part["$ref"]).rpartition("/")[2]
    if "enum" in part:
        return " | ".join(map(str, part["enum"]))
    if "anyOf" in part:
        kinds = [_type(option) for option in part["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if part.get("type") == "array":
        return f"list of {_type(part.get('items', {})) or 'anything'}"
    return str(part.get("format") or part.get("type") or "anything")
