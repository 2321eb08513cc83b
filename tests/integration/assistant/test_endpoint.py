"""A language model behind an OpenAI-compatible endpoint, played here: streams, tools, failures."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.assistant import Assistant, install

from ironbeat.workloads.assistant import accounts
from ironbeat.workloads.assistant.trial.apis import ChannelApis
from ironbeat.workloads.assistant.trial.senders import App


class Model:
    """Says what the test wrote down for it, in pieces, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.script: deque[Any] = deque()
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                model.asked.append(json.loads(self.rfile.read(length)))
                model.keys.append(self.headers["Authorization"])
                said = model.script.popleft()
                if isinstance(said, int):
                    self.send_error(said)
                    return
                self.send_response(200)
                kind = "text/event-stream" if isinstance(said, list) else "application/json"
                self.send_header("Content-Type", kind)
                self.end_headers()
                if isinstance(said, list):
                    for delta in said:
                        piece = {"choices": [{"index": 0, "delta": delta}]}
                        self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
                    self.wfile.write(b": a comment\n\ndata: [DONE]\n\n")
                else:
                    self.wfile.write(said)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def model() -> Iterator[Model]:
    found = Model()
    yield found
    found.close()


@pytest.fixture
def app(assistant: Assistant, apis: ChannelApis, model: Model) -> App:
    installed = install(
        "telegram",
        apis.url,
        name="llm",
        llm_url=model.url,
        llm_model="tiny",
        default_permissions=["inventory.read"],
    )
    secrets = {**installed.secrets, accounts.LLM_KEY: "sk-secret"}
    accounts.save(installed.channel, installed.app_id, secrets, installed.options)
    return installed


def call(name: str, *pieces: str) -> list[dict[str, Any]]:
    """A stream that calls a tool, its arguments in pieces."""
    first = {"index": 0, "id": "call-1", "type": "function", "function": {"name": name}}
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
    return [{"role": "assistant"}, *({"tool_calls": [each]} for each in (first, *rest))]


def test_an_answer_comes_in_pieces(assistant: Assistant, app: App, model: Model) -> None:
    model.script.append([{"role": "assistant"}, {"content": "Good "}, {"content": "morning."}])
    assert assistant.say(app, "hello there") == "Good morning."
    (asked,) = model.asked
    assert asked["model"] == "tiny" and asked["stream"] is True
    assert asked["messages"][-1] == {"role": "user", "content": "hello there"}
    assert {each["function"]["name"] for each in asked["tools"]} >= {"check_inventory_stock"}
    assert model.keys == ["Bearer sk-secret"]
    assert assistant.apis.busy_signs["telegram"] > 0


def test_a_tool_is_called_and_its_result_told_to_the_model(
    assistant: Assistant, app: App, model: Model
) -> None:
    model.script.append(call("check_inventory_stock", '{"ware', 'house": "TPE-1"}'))
    model.script.append([{"content": "Plenty in Taipei."}])
    assert assistant.say(app, "how much is in Taipei?") == "Plenty in Taipei."
    called, result = model.asked[1]["messages"][-2:]
    assert called["tool_calls"][0]["function"]["arguments"] == '{"warehouse": "TPE-1"}'
    assert result["tool_call_id"] == "call-1"
    assert json.loads(result["content"])["code"] == "TPE-1"
    assert assistant.rows("SELECT tool, state FROM assistant.tool_runs") == [
        ("check_inventory_stock", "succeeded")
    ]


def test_what_a_user_may_not_do_the_model_may_not_do_for_them(
    assistant: Assistant, app: App, model: Model
) -> None:
    model.script += [[{"content": "hi"}], call("check_inventory_stock", '{"warehouse":"TPE-1"}')]
    model.script.append([{"content": "I may not."}])
    assistant.say(app, "hello there")
    assistant.rows("UPDATE assistant.users SET permissions = '{}'")
    assert assistant.say(app, "stock please") == "I may not."
    assert "tools" not in model.asked[1]
    assert "may not use" in model.asked[2]["messages"][-1]["content"]
    assert [m["content"] for m in model.asked[1]["messages"][1:]] == [
        "hello there", "hi", "stock please",
    ]  # fmt: skip


def test_wrong_calls_are_told_to_the_model_and_end(
    assistant: Assistant, app: App, model: Model
) -> None:
    for name, arguments in (("no_such", "{}"), ("check_inventory_stock", "{"), ("x", "[]")):
        model.script.append(call(name, arguments))
    model.script.append(call("check_inventory_stock", '{"warehouse": 1}'))
    model.script.append([{"content": "Sorry."}])
    assert assistant.say(app, "hello there") == "Sorry."
    assert "tools" not in model.asked[-1]


@pytest.mark.parametrize(
    "said",
    [503, 401, b"no json", b"[]", b'{"error": {"message": "quota"}}', [], [{"content": "  "}]],
)
def test_while_it_fails_the_built_in_one_answers(
    assistant: Assistant, app: App, model: Model, said: Any
) -> None:
    model.script.append(said)
    answer = assistant.say(app, "what stock has TPE-1?")
    assert str(answer).startswith("台北倉 (TPE-1):")


def test_one_that_is_not_there(assistant: Assistant, app: App, model: Model) -> None:
    model.close()
    assert "TPE-1" in str(assistant.say(app, "what stock has TPE-1?"))


def test_an_answer_that_does_not_stream(assistant: Assistant, app: App, model: Model) -> None:
    whole = {"choices": [{"message": {"role": "assistant", "content": "All at once."}}]}
    model.script.append(json.dumps(whole).encode())
    assert assistant.say(app, "hello there") == "All at once."
