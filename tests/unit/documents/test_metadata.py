"""Keywords, entities, summaries and token counts of real sentences."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy
import pytest

from ironbeat.workloads.documents.endpoint import Endpoint, EndpointFailed, answer_of
from ironbeat.workloads.documents.metadata import BadChunk, generate
from ironbeat.workloads.documents.summary import chosen_of

ENGLISH = (
    "Debian is a free operating system for your computer. It was founded by Ian Murdock in August "
    "1993. The Free Software Foundation sponsored Debian for one year in the United States. "
    "Packages are installed with apt, which resolves the dependencies of packages. Write to "
    "debian-www@lists.debian.org or see https://www.debian.org/doc/ about version 12.4.0."
)
CHINESE = (
    "Debian 是一个自由的操作系统。伊恩·默多克于1993年8月在美国创立了 Debian 项目。"
    "自由软件基金会曾经赞助过它一年。软件包用 apt 安装，它会解决软件包之间的依赖关系。"
    "清华大学提供了软件包的镜像。更多信息请看 https://www.debian.org/doc/。"
)


def named(found: dict[str, Any], kind: str) -> set[str]:
    return {each["text"] for each in found["entities"] if each["type"] == kind}


def test_english() -> None:
    stages: list[str] = []
    found = generate(ENGLISH, report=stages.append)
    assert stages == ["preprocessing", "analysis", "generation", "validation"]
    assert found["language"] == "en" and 60 < found["token_count"] < 140
    words = [each["text"].lower() for each in found["keywords"]]
    assert len(words) == 10 and "operating system" in words
    assert found["keywords"][0]["score"] == 1.0
    assert found["summary"].startswith("Debian is a free operating system")
    assert found["summary"].count(". ") <= 2
    assert "Ian Murdock" in named(found, "person")
    assert {"https://www.debian.org/doc/"} == named(found, "url")
    assert {"debian-www@lists.debian.org"} == named(found, "email")
    assert "12.4.0" in named(found, "version")
    assert any("Free Software Foundation" in each for each in named(found, "organization"))
    assert found["written_by"] == "built-in" and found["processed_at"].endswith("+00:00")


def test_chinese() -> None:
    found = generate(CHINESE)
    assert found["language"] == "zh" and 40 < found["token_count"] < 140
    words = [each["text"] for each in found["keywords"]]
    assert "软件包" in words and not any("，" in word or "。" in word for word in words)
    assert "Debian" in found["summary"] and found["summary"].endswith("。")
    assert "伊恩·默多克" in named(found, "person")
    assert "美国" in named(found, "place")
    assert "1993年8月" in named(found, "date")
    assert any(each.endswith("基金会") for each in named(found, "organization"))
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("bad", ["", " \n ", "x" * 100_001])
def test_a_chunk_without_text_or_of_any_length_is_refused(bad: str) -> None:
    with pytest.raises(BadChunk):
        generate(bad)


def test_the_same_text_has_the_same_metadata() -> None:
    first, second = ({**generate(CHINESE), "processed_at": ""} for _ in range(2))
    assert first == second


def test_a_summary_takes_what_is_central_early_and_not_twice() -> None:
    same, other, far = numpy.eye(3)
    vectors = [same, same, same * 0.9 + other * 0.6, other, far]
    assert chosen_of(vectors, 2) == [2, 0]
    assert sorted(chosen_of([same] * 4, 2)) == [0]


# -- an endpoint


class Model:
    """A language model's server of one's own: it answers as it is told to."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                model.requests.append(
                    {"path": self.path, "key": self.headers["Authorization"], **json.loads(body)}
                )
                answer = model.answers.pop(0) if len(model.answers) > 1 else model.answers[0]
                answer(self)

            def log_message(self, *_: Any) -> None:
                """Quietly."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"


def said(content: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return answered(200, json.dumps({"choices": [{"message": {"content": content}}]}))


def answered(
    status: int, body: str = "", **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body.encode())

    return answer


GOOD = json.dumps(
    {
        "summary": "A summary.",
        "entities": [
            {"text": "Ian Murdock", "type": "person"},
            {"text": "Made Up", "type": "person"},
        ],
    }
)


@pytest.fixture
def model() -> Iterator[Model]:
    served = Model()
    yield served
    served.server.shutdown()
    served.server.server_close()


def test_a_model_writes_summary_and_entities(model: Model) -> None:
    model.answers = [said(f"```json\n{GOOD}\n```")]
    found = generate(ENGLISH, endpoint=Endpoint(model.url, "m-1", "secret"))
    assert (found["summary"], found["written_by"]) == ("A summary.", "m-1")
    # What does not stand in the passage was made up.
    assert found["entities"] == [{"text": "Ian Murdock", "type": "person", "count": 1}]
    assert found["language"] == "en" and len(found["keywords"]) == 10
    [request] = model.requests
    assert (request["path"], request["key"], request["model"]) == (
        "/v1/chat/completions", "Bearer secret", "m-1",
    )  # fmt: skip
    assert ENGLISH in request["messages"][1]["content"]


def test_a_busy_model_is_asked_again(model: Model) -> None:
    model.answers = [answered(429, Retry_After="7"), answered(503), said(GOOD)]
    slept: list[float] = []
    found = Endpoint(model.url, "m").ask(ENGLISH, "en", sleep=slept.append)
    assert found["summary"] == "A summary." and slept == [7.0, 2.0]


@pytest.mark.parametrize(
    ("answer", "reason", "asked"),
    [
        (answered(500), "HTTP 500 (3 tries)", 3),
        (answered(401), "HTTP 401", 1),
        (answered(302, Location="http://127.0.0.1:1/"), "HTTP 302", 1),
        (said("I cannot do that."), "an answer of another form", 1),
        (said('{"summary": "  "}'), "an empty summary", 1),
        (answered(200, "<html>"), "an answer of another form", 1),
    ],
)
def test_a_failing_model_is_replaced_and_the_reason_kept(
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[BaseHTTPRequestHandler], None],
    reason: str,
    asked: int,
) -> None:
    monkeypatch.setattr("ironbeat.workloads.documents.endpoint.PAUSE_SECONDS", 0.0)
    model.answers = [answer]
    found = generate(ENGLISH, endpoint=Endpoint(model.url, "m", "secret", tries=3))
    assert found["written_by"] == "built-in" and found["summary"].startswith("Debian is")
    assert reason in found["fallback"] and "secret" not in found["fallback"]
    assert len(model.requests) == asked


def test_a_model_that_hangs_or_is_not_there_is_replaced() -> None:
    hanging = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    try:
        url = f"http://127.0.0.1:{hanging.server_port}/v1"
        with pytest.raises(EndpointFailed, match="no answer: TimeoutError"):
            Endpoint(url, "m", timeout=0.2, tries=1).ask(ENGLISH, "en")
    finally:
        hanging.server_close()
    with pytest.raises(EndpointFailed, match="no answer: ConnectionRefusedError"):
        Endpoint(url, "m", timeout=1, tries=1).ask(ENGLISH, "en")


def test_what_a_model_says_is_only_data() -> None:
    with pytest.raises(EndpointFailed):
        answer_of(b'{"choices": []}', "x")
    raw = json.dumps(
        {"choices": [{"message": {"content": '{"summary": "s", "entities": [1, {"text": 2}]}'}}]}
    )
    assert answer_of(raw.encode(), "x") == {"summary": "s", "entities": []}
