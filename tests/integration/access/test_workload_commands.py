"""What the workloads' own commands change is in the audit."""

from __future__ import annotations

import psycopg
import pytest
import structlog
from typer.testing import CliRunner

from ironbeat.app import current_app

pytestmark = pytest.mark.usefixtures("fresh_app")


@pytest.fixture
def fresh_app(settings):
    """A process of its own: what a command makes of its logs ends with it."""
    current_app.cache_clear()
    logs = structlog.get_config()
    yield
    structlog.configure(**logs)
    current_app.cache_clear()


@pytest.fixture
def entries(settings):
    def read() -> list[tuple]:
        with psycopg.connect(settings.database_url.get_secret_value()) as connection:
            return connection.execute(
                "SELECT action, subject, outcome, detail FROM ironbeat.audit ORDER BY id"
            ).fetchall()

    return read


def call(app, *arguments: str, input: str | None = None):
    return CliRunner().invoke(app, list(arguments), input=input)


def test_showing_the_ratio_changes_nothing_and_setting_it_is_noted(entries):
    from ironbeat.workloads.documents.commands import app

    assert call(app, "ratio").exit_code == 0
    assert call(app, "move", "rq").exit_code == 0
    assert call(app, "canary", "--ratio", "0.5", "--dry-run").exit_code == 0
    assert entries() == []
    assert call(app, "ratio", "0.25").exit_code == 0
    assert call(app, "move", "rq", "--yes").exit_code == 0
    assert entries() == [
        ("ratio.set", "documents", "done", {"ratio": 0.25, "before": 0.0}),
        ("documents.move", "rq", "done", {}),
    ]


def test_an_account_of_a_channel_comes_and_goes_without_its_secrets(entries):
    from ironbeat.workloads.assistant.commands import app

    options = ("--channel", "telegram", "--app-id", "42")
    secrets = '{"bot_token": "42:very-secret-word", "webhook_secret": "another-secret-word"}'
    added = call(app, "account", "add", *options, "--grant", "inventory.read", input=secrets)
    assert added.exit_code == 0, added.output
    for verb in ("disable", "enable", "list"):
        assert call(app, "account", verb, *(options if verb != "list" else ())).exit_code == 0
    assert call(app, "account", "remove", *options, "--yes").exit_code == 0
    call(app, "grant", "7", "inventory.write")
    noted = entries()
    assert [entry[:2] for entry in noted] == [
        ("assistant.account_add", "telegram/42"),
        ("assistant.account_disable", "telegram/42"),
        ("assistant.account_enable", "telegram/42"),
        ("assistant.account_remove", "telegram/42"),
        ("assistant.grant", "7"),
    ]
    assert [entry[2] for entry in noted[:4]] == ["done"] * 4
    assert noted[0][3] == {"grant": ["inventory.read"]}
    assert "no user 7" in noted[4][2] and noted[4][3] == {"permission": "inventory.write"}
    assert "secret-word" not in str(noted)


def test_an_import_of_messages_is_noted_with_its_file(entries, tmp_path):
    from ironbeat.workloads.analytics.commands import app

    file = tmp_path / "chats.jsonl"
    file.write_text('{"content": "where is my parcel", "role": "user"}\n')
    assert call(app, "import", str(file)).exit_code == 0
    assert entries() == [("analytics.import", str(file), "done", {})]
