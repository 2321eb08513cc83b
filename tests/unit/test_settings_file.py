"""Changing the file of settings, and nothing in it but what was asked for."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ironbeat.settings import ENV_FILE, get_settings
from ironbeat.settings_file import change, make_last

TEXT = "# mine\nREDIS_HOST=here\nexport USE_CELERY = true\nLOG_LEVEL=INFO"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "env"
    path.write_text(TEXT)
    path.chmod(0o600)
    monkeypatch.setenv(ENV_FILE, str(path))
    monkeypatch.delenv("USE_CELERY", raising=False)
    monkeypatch.delenv("IRONBEAT_USE_CELERY", raising=False)
    get_settings.cache_clear()
    yield path
    get_settings.cache_clear()


def test_a_value_is_changed_and_another_added(file: Path) -> None:
    assert change(file, {"REDIS_HOST": "there", "REDIS_PORT": "7"})
    assert file.read_text() == (
        "# mine\nREDIS_HOST='there'\nexport USE_CELERY = true\nLOG_LEVEL=INFO\nREDIS_PORT='7'\n"
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not change(file, {"REDIS_HOST": "there"})


def test_what_the_file_cannot_hold_is_refused(file: Path) -> None:
    with pytest.raises(ValueError, match="REDIS_HOST holds a quote"):
        change(file, {"REDIS_HOST": "it's"})
    assert file.read_text() == TEXT


def test_a_setting_is_switched_off_for_good(file: Path) -> None:
    assert get_settings().use_celery
    assert make_last("use_celery", "false") is None
    assert not get_settings().use_celery
    assert "USE_CELERY='false'\n" in file.read_text()
    # Nobody sets it: nothing to change.
    file.write_text("LOG_LEVEL=INFO\n")
    assert make_last("use_celery", "false") is None
    assert file.read_text() == "LOG_LEVEL=INFO\n"


def test_the_environment_is_named_as_what_says_otherwise(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USE_CELERY", "true")
    assert make_last("use_celery", "false") == "USE_CELERY (environment)"
    assert file.read_text() == TEXT
