"""Sample rows: warehouses with stock, so that ``/stock`` has something to tell."""

from __future__ import annotations

from collections.abc import Callable

from ironbeat import connection, load_queries

WAREHOUSES = (
    ("TPE-1", "台北倉", ["台北", "Taipei"]),
    ("TPE-2", "林口倉", ["林口", "Linkou"]),
    ("KHH-1", "高雄倉", ["高雄", "Kaohsiung"]),
    ("SHA-1", "上海仓", ["上海", "Shanghai"]),
)
PRODUCTS_PER_USER = 0.2


def load(*, scale: int, progress: Callable[[int, int], None]) -> dict[str, int]:
    """Make four warehouses and a fifth of ``scale`` products, each in stock in some of them.

    The same rows each time; what is there is left as it is. Raises ``ValueError`` for a scale
    below 1.
    """
    if scale < 1:
        raise ValueError(f"scale is {scale}; it must be at least 1 user")
    products = max(10, int(scale * PRODUCTS_PER_USER))
    sql = load_queries(__name__.rpartition(".")[0], "sample.sql")
    added: dict[str, int] = {}
    with connection() as opened, opened.transaction():
        with opened.cursor() as cursor:
            cursor.executemany(sql["sample_warehouse"], WAREHOUSES, returning=False)
            added["warehouses"] = cursor.rowcount
        for number, name in enumerate(("products", "stock"), start=1):
            cursor = opened.execute(sql[f"sample_{name}"], {"products": products})
            added[name] = cursor.rowcount
            progress(number, 2)
    return added
