"""Vectors as PostgreSQL's binary COPY has them: whole batches as arrays, nothing a row at a time.

The format is PostgreSQL's ("COPY", Binary Format) with pgvector's ``halfvec`` in it: the number of
components and an unused word, 16 bits each, then the components as 16-bit floats, big-endian.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ironbeat.workloads.analytics.embedder import STORED

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_VECTOR_BYTES = 4 + 2 * STORED

_WRITTEN = np.dtype(
    [
        ("fields", ">i2"),
        ("model_bytes", ">i4"),
        ("model", ">i2"),
        ("message_bytes", ">i4"),
        ("message", ">i8"),
        ("indexed_bytes", ">i4"),
        ("indexed", ">i1"),
        ("vector_bytes", ">i4"),
        ("components", ">i2"),
        ("unused", ">i2"),
        ("vector", ">f2", (STORED,)),
    ]
)
_READ = np.dtype(
    [
        ("fields", ">i2"),
        ("message_bytes", ">i4"),
        ("message", ">i8"),
        ("vector_bytes", ">i4"),
        ("components", ">i2"),
        ("unused", ">i2"),
        ("vector", ">f2", (STORED,)),
    ]
)


def written(
    model: int,
    messages: NDArray[np.int64],
    indexed: NDArray[np.bool_],
    vectors: NDArray[np.float32],
) -> bytes:
    """The input of ``COPY … (model_id, message_id, indexed, embedding) FROM … (FORMAT binary)``."""
    rows = np.zeros(len(messages), dtype=_WRITTEN)
    rows["fields"] = 4
    rows["model_bytes"], rows["model"] = 2, model
    rows["message_bytes"], rows["message"] = 8, messages
    rows["indexed_bytes"], rows["indexed"] = 1, indexed
    rows["vector_bytes"], rows["components"] = _VECTOR_BYTES, STORED
    rows["vector"][:, : vectors.shape[1]] = vectors
    return _HEADER + rows.tobytes() + _TRAILER


def read(
    chunks: Iterable[bytes | bytearray | memoryview], number: int, dimensions: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The output of ``COPY (SELECT message_id, embedding …) TO STDOUT (FORMAT binary)``.

    ``number``: at most so many rows come. Only the first ``dimensions`` components are kept.
    """
    messages = np.empty(number, dtype=np.int64)
    vectors = np.empty((number, dimensions), dtype=np.float32)
    filled = 0
    waiting = bytearray()
    skipped = False
    for chunk in chunks:
        waiting += chunk
        if not skipped:
            if len(waiting) < len(_HEADER):
                continue
            del waiting[: len(_HEADER)]
            skipped = True
        whole = len(waiting) // _READ.itemsize
        # Some hundred rows at once; the trailer is shorter than a row.
        if whole < 256 and len(waiting) < 256 * _READ.itemsize:
            continue
        filled += _take(waiting, whole, messages[filled:], vectors[filled:], dimensions)
        del waiting[: whole * _READ.itemsize]
    whole = len(waiting) // _READ.itemsize
    filled += _take(waiting, whole, messages[filled:], vectors[filled:], dimensions)
    return messages[:filled], vectors[:filled]


def _take(
    data: bytearray,
    rows: int,
    messages: NDArray[np.int64],
    vectors: NDArray[np.float32],
    dimensions: int,
) -> int:
    found = np.frombuffer(bytes(data[: rows * _READ.itemsize]), dtype=_READ)
    messages[:rows] = found["message"]
    vectors[:rows] = found["vector"][:, :dimensions]
    return rows


def literal(vector: NDArray[np.float32]) -> str:
    """One vector as ``halfvec`` reads it."""
    return "[" + ",".join(f"{value:.6g}" for value in vector) + "]"
