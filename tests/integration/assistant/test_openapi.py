"""Every operation of the API's own description, called with whatever that description allows.

The requests come from the OpenAPI schema (and some on purpose against it): no answer is a 5xx, none
shows a traceback, and what is refused is told as a problem. A dozen requests an operation by
default, ten thousand in all in the long tier.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from tests.assistant import Assistant

TOKEN = {"Authorization": "Bearer t0ken-of-the-api"}


def _operations(assistant: Assistant) -> Iterator[Any]:
    schema = schemathesis.openapi.from_dict(assistant.client.app.openapi())  # type: ignore[attr-defined]
    for found in schema.get_all_operations():
        yield found.ok()


def _call(assistant: Assistant, case: Any) -> Any:
    sent = case.as_transport_kwargs(headers=dict(TOKEN))
    del sent["cookies"]
    content = sent.pop("data", None)
    if content is not None:
        sent["content"] = content
    # What only says who is asking, and confuses the client.
    sent["headers"] = {
        name: value.encode("utf-8", "replace")
        for name, value in dict(sent["headers"]).items()
        if name.lower() not in ("accept-encoding", "connection", "content-length")
    }
    return assistant.client.request(**sent)


def _fuzz(
    assistant: Assistant, examples: int, caplog: pytest.LogCaptureFixture
) -> Counter[tuple[str, int]]:
    seen: Counter[tuple[str, int]] = Counter()
    caplog.set_level(logging.ERROR)
    for operation in _operations(assistant):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _fuzz_operation(assistant, operation, mode, examples, seen, caplog)
    return seen


def _fuzz_operation(
    assistant: Assistant,
    operation: Any,
    mode: GenerationMode,
    examples: int,
    seen: Counter[tuple[str, int]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = f"{operation.method.upper()} {operation.path}"

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        response = _call(assistant, case)
        seen[name, response.status_code] += 1
        # 503 says in /health that this suite has no beat and no worker, as is the case.
        assert response.status_code < 500 or operation.path == "/health", (name, response.text)
        assert "Traceback" not in response.text, name
        if response.status_code >= 400 and operation.path != "/health":
            assert response.json()["detail"], name
        assert not [each for each in caplog.records if each.exc_info], name

    # Of an operation without parameters nothing can be wrong.
    with suppress(Unsatisfiable) if mode.is_negative else nullcontext():
        one()


def test_a_dozen_requests_an_operation(
    assistant: Assistant, caplog: pytest.LogCaptureFixture
) -> None:
    seen = _fuzz(assistant, 6, caplog)
    called = {name for name, _ in seen}
    assert "POST /api/assistant/webhook/{channel}/{app_id}" in called and len(called) > 30
    by_status = Counter(status for _, status in seen.elements())
    # It came as far as an answer, and was refused for more than one reason.
    assert by_status[200] > 20 and by_status[422] > 20 and by_status[404] > 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_requests(assistant: Assistant, caplog: pytest.LogCaptureFixture) -> None:
    seen = _fuzz(assistant, 180, caplog)
    print(f"answered with: {sorted(Counter(status for _, status in seen.elements()).items())}")
    assert seen.total() >= 10_000
