"""The command line and the routes: imports, a run by hand, searches, what a front end fetches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.chats import Chats
from typer.testing import CliRunner

from ironbeat.api.application import create_api
from ironbeat.cli.root import app
from ironbeat.settings import Settings, get_settings

LINES = [
    {
        "id": "1",
        "role": "user",
        "content": "怎麼重設密碼？",
        "created_at": "2026-03-01T09:30:00+08:00",
    },
    {"id": "2", "role": "assistant", "content": "請到會員中心", "created_at": 1772328700},
    {"id": "3", "role": "user", "content": "How do I reset my password?", "chat_id": 7},
    {"id": "4", "role": "user", "content": "怎么重设密码", "created_at": "2026-03-02 08:00:00"},
]


def ironbeat(*arguments: str, exit_status: int = 0) -> Any:
    result = CliRunner().invoke(app, ["analytics", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == exit_status, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.output


@pytest.fixture
def chat_file(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in LINES) + "\n\n")
    return path


def test_a_file_is_imported_once(chats: Chats, chat_file: Path) -> None:
    assert ironbeat("import", str(chat_file), "--json") == {"read": 4, "added": 4, "known": 0}
    assert "0 added, 4 were there already" in ironbeat("import", str(chat_file))
    times = chats.run(
        "SELECT created_at AT TIME ZONE 'Asia/Taipei' FROM analytics.chat_messages"
        " WHERE external_id IN ('1', '4') ORDER BY external_id"
    )
    assert [str(time) for time in times] == ["2026-03-01 09:30:00", "2026-03-02 08:00:00"]


def test_csv_without_ids_is_imported_once_too(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / "chats.CSV"
    path.write_text(
        "﻿role,content,created_at\nuser,怎麼重設密碼？,2026-03-01\n"
        'assistant,"請到會員中心,\n謝謝",2026-03-01\n'
    )
    assert ironbeat("import", str(path), "--json")["added"] == 2
    assert ironbeat("import", str(path), "--json")["added"] == 0
    assert "謝謝" in chats.value(
        "SELECT content FROM analytics.chat_messages WHERE role = 'assistant'"
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"role": "user"}', "content is missing or empty"),
        ('{"role": "admin", "content": "hello"}', "role is 'admin'"),
        ('{"role": "user", "content": "x", "created_at": "yesterday"}', "write it as 2026"),
        ('{"role": "user", "content": "x", "created_at": 1e12}', "year"),
        ('{"role": "user", "content": "a\\u0000b"}', "NUL"),
        ("[1]", "an object is wanted"),
        ("{", "no JSON"),
    ],
)
def test_a_bad_line_is_named_and_nothing_changed(
    chats: Chats, chat_file: Path, line: str, reason: str
) -> None:
    chat_file.write_text(chat_file.read_text() + line + "\n")
    output = ironbeat("import", str(chat_file), exit_status=2)
    assert "line 6" in output and reason in output, output
    assert chats.value("SELECT count(*) FROM analytics.chat_messages") == 0


def test_a_file_of_another_kind_is_told(chats: Chats, tmp_path: Path) -> None:
    path = tmp_path / "chats.txt"
    path.write_text("hello")
    assert "--format" in ironbeat("import", str(path), exit_status=2)
    path.write_text("text,who\nhello,me\n")
    output = ironbeat("import", str(path), "--format", "csv", exit_status=2)
    assert "content and role" in output


def test_a_run_by_hand_prints_the_groups(chats: Chats, chat_file: Path) -> None:
    ironbeat("import", str(chat_file))
    printed = ironbeat("run", "--date", "2026-03-02")
    assert "3 messages embedded" in printed
    assert "密碼" in printed or "password" in printed
    result = ironbeat("run", "--date", "2026-03-02", "--json")
    assert result["date"] == "2026-03-02"
    assert result["questions"][0]["messages"] == 2
    assert result["classification"]["groups"] == 1
    assert "2026-03-01" in ironbeat("run", "--date", "tomorrow", exit_status=2)
    assert "no role" in ironbeat("run", "--role", "admin", exit_status=2)
    assert ironbeat("groups", "--date", "2026-03-02", "--json")["questions"]


def test_groups_that_were_never_computed_are_said_to_be(chats: Chats) -> None:
    ironbeat("groups", "--date", "1999-01-01", exit_status=3)


def test_a_search_crosses_languages(chats: Chats, chat_file: Path) -> None:
    ironbeat("import", str(chat_file))
    assert ironbeat("search", "password", "--json") == []
    ironbeat("run")
    found = ironbeat("search", "I forgot my password", "--json")
    assert len(found) == 3
    assert found[0]["similarity"] > 0.5
    assert any("密" in row["content"] for row in found)


def test_a_model_that_is_not_there_is_told_by_the_commands(
    chats: Chats, chat_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ironbeat("import", str(chat_file))
    ironbeat("run")
    monkeypatch.setenv("IRONBEAT_ANALYTICS_MODEL", str(tmp_path / "nothing"))
    get_settings.cache_clear()
    for command in (["run"], ["search", "password"]):
        assert "ANALYTICS_MODEL" in ironbeat(*command, exit_status=2)
    get_settings.cache_clear()


@pytest.fixture
def client(chats: Chats, module_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setenv("IRONBEAT_API_TOKEN", "a-token")
    get_settings.cache_clear()
    made = TestClient(create_api(get_settings()))
    made.headers["Authorization"] = "Bearer a-token"
    yield made
    get_settings.cache_clear()


def test_questions_are_served_with_an_etag(client: TestClient, chat_file: Path) -> None:
    assert client.get("/api/analytics/questions").status_code == 404
    ironbeat("import", str(chat_file))
    ironbeat("run")
    answer = client.get("/api/analytics/questions")
    assert answer.status_code == 200
    assert answer.json()["questions"][0]["messages"] == 3
    etag = answer.headers["etag"]
    same = client.get("/api/analytics/questions", headers={"If-None-Match": f'"x", W/{etag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    other = client.get("/api/analytics/questions", headers={"If-None-Match": '"x"'})
    assert other.status_code == 200
    group = answer.json()["questions"][0]["id"]
    members = client.get(f"/api/analytics/groups/{group}").json()
    assert sum(member["messages"] for member in members["members"]) == 3
    assert sum(day["messages"] for day in members["days"]) == 3
    assert client.get("/api/analytics/groups/999999").status_code == 404
    assert client.get("/api/analytics/questions?date=then").status_code == 422


def test_the_page_shows_groups_with_a_chart(client: TestClient, chat_file: Path) -> None:
    ironbeat("import", str(chat_file))
    ironbeat("run")
    answer = client.get("/api/analytics/page")
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<polyline" in answer.text and "Hot questions" in answer.text


def test_all_of_it_wants_the_token(client: TestClient) -> None:
    for path in ("questions", "page", "groups/1"):
        answer = client.get(f"/api/analytics/{path}", headers={"Authorization": "Bearer no"})
        assert answer.status_code == 401
