"""Tools: validated, permitted, limited in time, logged; and what the inventory's own tell."""

from __future__ import annotations

import time

import pytest
from tests.assistant import Assistant

from ironbeat.workloads.assistant import knowledge, tasks, tools
from ironbeat.workloads.assistant.handler import handler
from ironbeat.workloads.assistant.tools import ToolBroken, ToolUser, run_tool
from ironbeat.workloads.assistant.trial.senders import App
from ironbeat.workloads.assistant.turns import Turn

CLERK = ToolUser(1, ("inventory.read",), "en")


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_registry", dict(tools.registered()))


def logged(assistant: Assistant) -> list[object]:
    return assistant.rows("SELECT state, input, output, error FROM assistant.tool_runs ORDER BY id")


def test_stock_of_a_warehouse(assistant: Assistant) -> None:
    expected = assistant.rows(
        "SELECT count(*), sum(on_hand)::int, sum(on_hand - reserved)::int FROM assistant.stock"
        " WHERE warehouse = 'TPE-1'"
    )[0]
    for asked in ("TPE-1", "tpe-1", "台北倉", "taipei"):
        output = run_tool("check_inventory_stock", CLERK, {"warehouse": asked}).output
        assert (output["products"], output["on_hand"], output["available"]) == expected
    low = [line["low"] for line in output["lines"]]
    assert low == sorted(low, reverse=True) and len(low) == 10
    assert assistant.value("SELECT min(duration_ms) FROM assistant.tool_runs") >= 0


def test_a_product_and_what_is_not_there(assistant: Assistant) -> None:
    sku = assistant.value("SELECT sku FROM assistant.stock WHERE warehouse = 'TPE-1' LIMIT 1")
    found = run_tool("check_inventory_stock", CLERK, {"warehouse": "TPE-1", "product": sku})
    assert [line["sku"] for line in found.output["lines"]] == [sku]
    none = run_tool("check_inventory_stock", CLERK, {"warehouse": "TPE-1", "product": "x%'"})
    assert none.told("en") == "TPE-1 has no x%'."
    nowhere = run_tool("check_inventory_stock", CLERK, {"warehouse": "MARS"})
    assert nowhere.told("en") == (
        "There is no warehouse MARS. There are: KHH-1, SHA-1, TPE-1, TPE-2"
    )


def test_who_may_not_is_denied_and_nothing_runs(assistant: Assistant) -> None:
    result = run_tool("check_inventory_stock", ToolUser(2), {"warehouse": "TPE-1"})
    assert (result.state, result.output) == ("denied", None)
    assert result.told("zh-Hant") == "你沒有使用 check_inventory_stock 的權限。"
    assert logged(assistant) == [("denied", {"warehouse": "TPE-1"}, None, "needs inventory.read")]


@pytest.mark.parametrize(
    "parameters",
    [{}, {"warehouse": 7}, {"warehouse": ""}, {"warehouse": "TPE-1", "drop": "tables"}],
)
def test_wrong_parameters_are_told_and_nothing_runs(
    assistant: Assistant, parameters: dict[str, object]
) -> None:
    result = run_tool("check_inventory_stock", CLERK, parameters)
    assert result.state == "invalid" and result.error
    assert "check_inventory_stock" in result.told("en")


def test_a_tool_is_given_up_when_its_time_is_over(assistant: Assistant) -> None:
    @tools.tool("endless", description="", permission=None, seconds=0.2)
    def endless() -> None:
        time.sleep(5)

    began = time.monotonic()
    assert run_tool("endless", CLERK, {}).state == "timed_out"
    assert time.monotonic() - began < 4
    assert logged(assistant) == [("timed_out", {}, None, "took more than 0.2 s")]


def test_a_tool_that_fails_tells_its_user_nothing_of_the_inside(assistant: Assistant) -> None:
    @tools.tool("broken", description="", permission=None)
    def broken() -> None:
        raise ValueError("the inside story")

    @tools.tool("refusing", description="", permission=None)
    def refusing() -> None:
        raise tools.ToolError("not on Sundays")

    @tools.tool("passing", description="", permission=None)
    def passing() -> None:
        raise ConnectionError("later")

    assert run_tool("broken", CLERK, {}).told("en") == "broken failed."
    assert run_tool("refusing", CLERK, {}).told("en") == "not on Sundays"
    with pytest.raises(ToolBroken):
        run_tool("passing", CLERK, {})
    assert [state for state, *_ in logged(assistant)] == ["broken", "failed", "broken"]
    assert logged(assistant)[0][3] == "ValueError: the inside story"


def test_progress_is_told_where_the_tool_was_called(assistant: Assistant) -> None:
    told: list[tuple[int, str]] = []
    result = run_tool("report_low_stock", CLERK, {}, progress=lambda *said: told.append(said))
    assert told == [(0, "KHH-1"), (25, "SHA-1"), (50, "TPE-1"), (75, "TPE-2")]
    low = assistant.value(
        "SELECT count(*)::int FROM assistant.stock WHERE on_hand - reserved <= reorder_level"
    )
    assert result.output["products"] == low > 0


def test_a_parameter_without_annotation_or_a_name_that_is_taken() -> None:
    with pytest.raises(ValueError, match="no annotation"):
        tools.tool("untyped", description="", permission=None)(lambda x: x)
    with pytest.raises(ValueError, match="long=True"):
        tools.tool("slow", description="", permission=None, seconds=60)
    with pytest.raises(ValueError, match="registered already"):
        tools.tool("check_inventory_stock", description="", permission=None)(lambda: None)


def test_only_tools_that_one_may_use_are_listed(assistant: Assistant, apps: dict[str, App]) -> None:
    listed = str(assistant.say(apps["telegram"], "/tools"))
    assert "check_inventory_stock" in listed
    assistant.rows("UPDATE assistant.users SET permissions = '{}'")
    assert assistant.say(apps["telegram"], "/tools") == "There are no tools that you may use."
    assert (
        assistant.say(apps["telegram"], "/stock TPE-1") == "You may not use check_inventory_stock."
    )
    assert str(assistant.say(apps["telegram"], "TPE-1 stock?")).startswith("I do not know")


def test_commands_that_are_wrong_say_how_they_are_used(
    assistant: Assistant, apps: dict[str, App]
) -> None:
    app = apps["telegram"]
    assert assistant.say(app, "/stock") == "Usage: /stock TPE-1 [SKU]"
    assert str(assistant.say(app, "/run report_low_stock [1]")).startswith("Usage: /run")
    assert str(assistant.say(app, "/run nothing {}")).startswith("There is no tool nothing")
    assert "warehouse" in str(assistant.say(app, "/run check_inventory_stock {}"))
    assert str(assistant.say(app, "/help@trial_bot")).startswith("I answer questions")


def test_what_documents_hold_is_quoted(assistant: Assistant, apps: dict[str, App]) -> None:
    if assistant.value("SELECT to_regclass('documents.chunks') IS NULL"):
        # As that workload lays them down, where it is not installed.
        assistant.rows("CREATE SCHEMA IF NOT EXISTS documents")
        assistant.rows("CREATE TABLE documents.documents (id text, title text, path text)")
        assistant.rows("CREATE TABLE documents.chunks (document_id text, text text)")
        assistant.rows("INSERT INTO documents.documents VALUES ('d1', 'Handbook', '')")
        add = "INSERT INTO documents.chunks VALUES ('d1', %s)"
    else:
        assistant.rows("INSERT INTO documents.documents (id, title) VALUES ('d1', 'Handbook')")
        add = (
            "INSERT INTO documents.chunks (id, document_id, position, text)"
            " VALUES (md5(%s), 'd1', (SELECT count(*) FROM documents.chunks), %s)"
        )
    for text in (
        "Returns are accepted within 30 days of delivery.",
        "退貨須於收貨後三十天內提出。",
    ):
        assistant.rows(add, *([text] * add.count("%s")))
    answer = str(assistant.say(apps["telegram"], "When are returns accepted after delivery?"))
    assert answer == (
        "This is what I found:\n\nReturns are accepted within 30 days of delivery.\n— Handbook"
    )
    assert "三十天" in str(assistant.say(apps["wechat"], "請問收貨後幾天內可以退貨？"))
    assert knowledge.search("the weather in Lisbon") == []
    assistant.rows("DELETE FROM documents.chunks WHERE document_id = 'd1'")


def test_a_long_tool_tells_how_far_it_is_in_the_chat(
    assistant: Assistant, apps: dict[str, App], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "PROGRESS_SECONDS", 0.0)
    assistant.say(apps["telegram"], "/help")
    message_id, user_id, conversation_id = assistant.rows(
        "SELECT id, user_id, conversation_id FROM assistant.messages"
    )[0]
    for _ in range(2):  # A second run of the same says nothing twice.
        done = tasks.execute_tool_async("report_low_stock", user_id, {}, message_id=message_id)
        assert (done["tool"], done["state"]) == ("report_low_stock", "succeeded")
    Turn(conversation_id, "test", handler().handle).take()
    said = assistant.apis.texts()
    assert said[:4] == [
        f"report_low_stock: {percent}% ({code})"
        for percent, code in ((0, "KHH-1"), (25, "SHA-1"), (50, "TPE-1"), (75, "TPE-2"))
    ]
    assert said[4].startswith("In 4 warehouses") and len(said) == 5


def test_a_tool_or_user_that_is_not_there(assistant: Assistant, apps: dict[str, App]) -> None:
    with pytest.raises(LookupError, match="no user"):
        tasks.execute_tool_async("report_low_stock", 0, {})
    assistant.say(apps["telegram"], "/help")
    user_id = assistant.value("SELECT id FROM assistant.users")
    with pytest.raises(LookupError, match="check_inventory_stock"):
        tasks.execute_tool_async("nothing", user_id, {})
    denied = tasks.execute_tool_async("check_inventory_stock", user_id, {"warehouse": "x" * 200})
    assert denied["state"] == "invalid"
