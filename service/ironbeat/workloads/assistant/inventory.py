"""Tools on the inventory: what a warehouse has, and what is running out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from ironbeat import connection
from ironbeat.workloads.assistant.language import say
from ironbeat.workloads.assistant.store import Connection, fetch, fetch_all
from ironbeat.workloads.assistant.tools import ToolContext, tool

PERMISSION = "inventory.read"
LINES_SHOWN = 10
LINES_REPORTED = 200
# A question goes through tables of an ordinary size in milliseconds.
STATEMENT_SECONDS = 5

_ASKS_FOR_STOCK = re.compile(r"库存|庫存|存貨|存货|\bstock\b|\binventory\b", re.IGNORECASE)

Warehouse = Annotated[str, Field(min_length=1, max_length=100, description="code or name")]
Product = Annotated[
    str | None, Field(max_length=100, description="SKU, or a part of the product's name")
]


def understand_stock(text: str) -> dict[str, Any] | None:
    """The parameters in a sentence that asks for stock and names a warehouse."""
    if not _ASKS_FOR_STOCK.search(text):
        return None
    lowered = text.lower()
    with connection() as opened:
        for row in fetch_all(opened, "warehouses"):
            if any(_names(lowered, name) for name in (row["code"], row["name"], *row["also"])):
                return {"warehouse": row["code"]}
    return None


def _names(text: str, name: str) -> bool:
    name = name.lower()
    if name.isascii():
        return re.search(rf"(?<![a-z0-9-]){re.escape(name)}(?![a-z0-9-])", text) is not None
    return name in text


def tell_stock(output: Any, language: str) -> str:
    """An answer of :func:`check_inventory_stock` in words."""
    if not output["found"]:
        known = ", ".join(output["known"]) or "–"
        return say("no_warehouse", language, asked=output["asked"], known=known)
    if output["product"] and not output["lines"]:
        return say("no_product", language, code=output["code"], sku=output["product"])
    return "\n".join([say("stock", language, **output), *_lines(output["lines"], language)])


def _lines(lines: Sequence[dict[str, Any]], language: str) -> list[str]:
    return [
        f"· {line['sku']} {line['name']}: {line['available']} {line['unit']}"
        + (f" ({say('low', language)})" if line["low"] else "")
        for line in lines
    ]


@tool(
    "check_inventory_stock",
    description="What a warehouse has in stock: totals, and its products that are running out.",
    permission=PERMISSION,
    tell=tell_stock,
    understand=understand_stock,
)
def check_inventory_stock(warehouse: Warehouse, product: Product = None) -> dict[str, Any]:
    """What a warehouse has: totals, and up to ten products, those that are running out first."""
    with connection() as opened, opened.transaction():
        _bound(opened)
        place = fetch(opened, "warehouse", asked=warehouse)
        if place is None:
            known = [row["code"] for row in fetch_all(opened, "warehouses")]
            return {"found": False, "asked": warehouse, "known": known}
        summary = fetch(opened, "stock_summary", warehouse=place["code"])
        lines = fetch_all(
            opened,
            "stock_lines",
            warehouse=place["code"],
            sku=product or None,
            limit=LINES_SHOWN,
        )
    return {"found": True, **place, "product": product, **(summary or {}), "lines": lines}


def tell_low_stock(output: Any, language: str) -> str:
    """An answer of :func:`report_low_stock` in words."""
    heading = say(
        "low_stock", language, warehouses=output["warehouses"], products=output["products"]
    )
    blocks = [
        "\n".join([f"{each['name']} ({each['code']})", *_lines(each["lines"], language)])
        for each in output["low"]
        if each["lines"]
    ]
    return "\n\n".join([heading, *blocks])


@tool(
    "report_low_stock",
    description="Every product that is to be ordered again, warehouse by warehouse.",
    permission=PERMISSION,
    seconds=300,
    long=True,
    tell=tell_low_stock,
)
def report_low_stock(context: ToolContext) -> dict[str, Any]:
    """What is to be ordered again, in every warehouse."""
    with connection() as opened:
        places = fetch_all(opened, "warehouses")
    low = []
    for number, place in enumerate(places):
        context.progress(100 * number // len(places), place["code"])
        with connection() as opened, opened.transaction():
            _bound(opened)
            lines = fetch_all(
                opened,
                "stock_lines",
                warehouse=place["code"],
                sku=None,
                limit=LINES_REPORTED,
            )
        low.append({**place, "lines": [line for line in lines if line["low"]]})
    return {
        "warehouses": len(places),
        "products": sum(len(each["lines"]) for each in low),
        "low": low,
    }


def _bound(opened: Connection) -> None:
    opened.execute("SELECT set_config('statement_timeout', %s, true)", [f"{STATEMENT_SECONDS}s"])
