"""Which name sets what, which one wins, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ironbeat.settings import (
    Settings,
    SettingsError,
    describe,
    get_settings,
    names_of,
    unknown_names,
)

Load = Callable[..., Settings]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Read the settings with these names set, and no others."""

    def load(**names: str) -> Settings:
        for name, value in names.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        return get_settings()

    yield load
    get_settings.cache_clear()


def plain(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "env"
    path.touch(mode=0o640)
    monkeypatch.setenv("IRONBEAT_ENV_FILE", str(path))
    return path


# -- the owners' names (REQUIREMENTS 0) and what they set

OWNERS_NAMES = [
    ("USE_REDIS", "false", "use_redis", False),
    ("REDIS_HOST", "cache", "redis_host", "cache"),
    ("REDIS_PORT", "7000", "redis_port", 7000),
    ("REDIS_DB_BROKER", "5", "redis_db_broker", 5),
    ("REDIS_DB_BACKEND", "6", "redis_db_backend", 6),
    ("CELERY_BROKER_URL", "redis://b:1/3", "broker_url", "redis://b:1/3"),
    ("CELERY_RESULT_BACKEND", "redis://r:1/4", "result_backend", "redis://r:1/4"),
    ("USE_CELERY", "true", "use_celery", True),
    ("WORKER_COUNT", "3", "worker_count", 3),
    ("WORKER_CONCURRENCY", "4", "worker_concurrency", 4),
    ("CELERY_WORKER_CONCURRENCY", "5", "worker_concurrency", 5),
    ("WORKER_MAX_TASKS_PER_CHILD", "10", "worker_max_tasks_per_child", 10),
    ("CELERY_WORKER_MAX_TASKS_PER_CHILD", "11", "worker_max_tasks_per_child", 11),
    ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
    ("CELERY_LOG_LEVEL", "Warning", "log_level", "WARNING"),
    ("CELERY_LOG_FILE", "/tmp/worker.log", "log_file", Path("/tmp/worker.log")),
    ("CELERY_WORKER_PREFETCH_MULTIPLIER", "8", "worker_prefetch_multiplier", 8),
    ("CELERY_TASK_ACKS_LATE", "no", "task_acks_late", False),
    ("CELERY_TASK_REJECT_ON_WORKER_LOST", "0", "task_reject_on_worker_lost", False),
    ("FLOWER_PORT", "5556", "flower_port", 5556),
    ("FLOWER_BASIC_AUTH", "ann:secret", "flower_basic_auth", "ann:secret"),
    ("AI_ASSISTANT_USE_ASYNC", "1", "ai_assistant_use_async", True),
    ("DATABASE_URL", "postgres://d/x", "database_url", "postgres://d/x"),
    ("SENTRY_DSN", "https://k@s.example/1", "sentry_dsn", "https://k@s.example/1"),
    ("IRONBEAT_HISTORY_DAYS", "7", "history_days", 7),
]


@pytest.mark.parametrize(("name", "text", "field", "value"), OWNERS_NAMES)
def test_a_name_sets_its_field(load: Load, name: str, text: str, field: str, value: Any) -> None:
    settings = load(**{name: text})
    assert plain(getattr(settings, field)) == value
    assert {each.name: each.origin for each in describe(settings)}[field] == f"{name} (environment)"


DEFAULTS = {
    "broker_url": "redis://localhost:6379/1",
    "result_backend": "redis://localhost:6379/2",
    "use_redis": True,
    "timezone": "Asia/Taipei",
    "worker_concurrency": 2,
    "worker_prefetch_multiplier": 1,
    "worker_max_tasks_per_child": 1000,
    "worker_max_memory_mb": 512,
    "task_acks_late": True,
    "task_soft_time_limit": 600,
    "task_time_limit": 900,
    "drain_seconds": 900,
    "stop_seconds": 930,
    "result_expires": 3600,
    "api_port": 8000,
    "api_workers": 4,
    "api_timeout": 120,
    "flower_port": 5555,
    "api_host": "127.0.0.1",
    "flower_host": "127.0.0.1",
    "use_celery": False,
    "ai_assistant_use_async": False,
    "run_dir": Path("var/run"),
    "log_dir": Path("var/log"),
    "enabled_workloads": None,
    "consumed_queues": None,
}


@pytest.mark.parametrize(("field", "value"), DEFAULTS.items())
def test_defaults(load: Load, field: str, value: Any) -> None:
    assert plain(getattr(load(), field)) == value


# -- the broker and the results: what wins

URLS = [
    # names set, broker, results
    ({"REDIS_URL": "redis://h:7/5"}, "redis://h:7/5", "redis://h:7/5"),
    ({"REDIS_URL": "redis://h:7"}, "redis://h:7/1", "redis://h:7/2"),
    ({"REDIS_URL": "redis://h:7/"}, "redis://h:7/1", "redis://h:7/2"),
    ({"REDIS_URL": "redis://h", "REDIS_DB_BACKEND": "9"}, "redis://h/1", "redis://h/9"),
    ({"REDIS_URL": "redis://h:7/5", "REDIS_HOST": "other"}, "redis://h:7/5", "redis://h:7/5"),
    (
        {"REDIS_URL": "redis://h:7/5", "CELERY_BROKER_URL": "redis://b/1"},
        "redis://b/1",
        "redis://h:7/5",
    ),
    (
        {"CELERY_BROKER_URL": "redis://b/1", "REDIS_HOST": "other"},
        "redis://b/1",
        "redis://other:6379/2",
    ),
    ({"CELERY_BROKER_URL": "redis://:p@b:7/1"}, "redis://:p@b:7/1", "redis://:p@b:7/2"),
    ({"REDIS_HOST": "h", "REDIS_PORT": "7"}, "redis://h:7/1", "redis://h:7/2"),
    ({"REDIS_HOST": "::1"}, "redis://[::1]:6379/1", "redis://[::1]:6379/2"),
    (
        {"REDIS_PASSWORD": "a/b@c"},
        "redis://:a%2Fb%40c@localhost:6379/1",
        "redis://:a%2Fb%40c@localhost:6379/2",
    ),
    (
        {"REDIS_DB_BROKER": "3", "REDIS_DB_BACKEND": "3"},
        "redis://localhost:6379/3",
        "redis://localhost:6379/3",
    ),
    (
        {"REDIS_URL": "redis+socket:///run/r.sock?password=p"},
        "redis+socket:///run/r.sock?password=p&virtual_host=1",
        "redis+socket:///run/r.sock?password=p&virtual_host=2",
    ),
    (
        {"REDIS_URL": "sentinel://a:26379;sentinel://b:26379"},
        "sentinel://a:26379/1;sentinel://b:26379/1",
        "sentinel://a:26379/2;sentinel://b:26379/2",
    ),
]


@pytest.mark.parametrize(("names", "broker", "results"), URLS)
def test_where_messages_and_results_go(
    load: Load, names: dict[str, str], broker: str, results: str
) -> None:
    settings = load(**names)
    assert (plain(settings.broker_url), plain(settings.result_backend)) == (broker, results)


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_COUNT", "7")
    assert Settings(worker_count=3, broker_url=SecretStr("redis://x/1")).worker_count == 3


# -- one setting, several names

GENERAL = [
    ({"LOG_LEVEL": "DEBUG", "CELERY_LOG_LEVEL": "ERROR"}, "log_level", "ERROR"),
    (
        {"DATABASE_URL": "postgres://a/x", "IRONBEAT_DATABASE_URL": "postgres://b/x"},
        "database_url",
        "postgres://b/x",
    ),
    ({"WORKER_COUNT": "3", "IRONBEAT_WORKER_COUNT": "3"}, "worker_count", 3),
    # Set to nothing is not set.
    ({"WORKER_COUNT": "", "IRONBEAT_WORKER_COUNT": "3"}, "worker_count", 3),
]


@pytest.mark.parametrize(("names", "field", "value"), GENERAL)
def test_a_specific_name_wins(load: Load, names: dict[str, str], field: str, value: Any) -> None:
    assert plain(getattr(load(**names), field)) == value


CONFLICTS = [
    ("WORKER_CONCURRENCY", "CELERY_WORKER_CONCURRENCY", "2", "4"),
    ("WORKER_MAX_TASKS_PER_CHILD", "CELERY_WORKER_MAX_TASKS_PER_CHILD", "10", "20"),
    ("IRONBEAT_WORKER_COUNT", "WORKER_COUNT", "1", "2"),
    ("IRONBEAT_FLOWER_PORT", "FLOWER_PORT", "5555", "5556"),
]


@pytest.mark.parametrize(("first", "second", "a", "b"), CONFLICTS)
def test_two_names_that_differ_are_refused(
    load: Load, first: str, second: str, a: str, b: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load(**{first: a, second: b})
    message = str(refused.value)
    assert f"{first}={a} (environment)" in message
    assert f"{second}={b} (environment)" in message
    assert "remove one" in message


def test_a_conflict_of_secrets_shows_neither(load: Load) -> None:
    with pytest.raises(SettingsError) as refused:
        load(CELERY_BROKER_URL="redis://:alpha@h/1", IRONBEAT_BROKER_URL="redis://:beta@h/1")
    assert "CELERY_BROKER_URL" in str(refused.value)
    assert "alpha" not in str(refused.value)
    assert "beta" not in str(refused.value)


# -- bad values: name, value, what is allowed

BAD = [
    ({"WORKER_COUNT": "0"}, ["WORKER_COUNT=0", "greater than or equal to 1"]),
    ({"CELERY_WORKER_CONCURRENCY": "two"}, ["CELERY_WORKER_CONCURRENCY=two", "integer"]),
    ({"FLOWER_PORT": "70000"}, ["FLOWER_PORT=70000", "65535"]),
    ({"IRONBEAT_TIMEZONE": "Mars/Base"}, ["IRONBEAT_TIMEZONE=Mars/Base", "Asia/Taipei"]),
    ({"LOG_LEVEL": "loud"}, ["LOG_LEVEL=LOUD", "'DEBUG', 'INFO'"]),
    ({"USE_REDIS": "perhaps"}, ["USE_REDIS=perhaps", "boolean"]),
    ({"IRONBEAT_WORKER_POOL": "fast"}, ["IRONBEAT_WORKER_POOL=fast", "'prefork'"]),
    ({"IRONBEAT_WORKLOADS": "a b"}, ["IRONBEAT_WORKLOADS", "commas"]),
    ({"DATABASE_URL": "mysql://u:pw@h/x"}, ["DATABASE_URL", "postgresql://"]),
    ({"CELERY_BROKER_URL": "amqp://u:pw@h"}, ["CELERY_BROKER_URL", "redis://"]),
    ({"REDIS_URL": "redis://u:pw@h:many/1"}, ["REDIS_URL", "redis://"]),
    ({"REDIS_HOST": "a b"}, ["REDIS_HOST"]),
    ({"FLOWER_BASIC_AUTH": "pw"}, ["FLOWER_BASIC_AUTH", "user:password"]),
    ({"IRONBEAT_ENCRYPTION_KEY": "pw"}, ["IRONBEAT_ENCRYPTION_KEY", "Fernet"]),
    (
        {"IRONBEAT_TASK_SOFT_TIME_LIMIT": "900"},
        ["IRONBEAT_TASK_SOFT_TIME_LIMIT=900", "must be below", "IRONBEAT_TASK_TIME_LIMIT=900"],
    ),
    (
        {"IRONBEAT_DRAIN_SECONDS": "60"},
        ["IRONBEAT_DRAIN_SECONDS=60", "IRONBEAT_TASK_TIME_LIMIT=900", "leave it out"],
    ),
    (
        {"IRONBEAT_LEASE_SECONDS": "3"},
        ["IRONBEAT_LEASE_RENEW_SECONDS=2.0", "half", "IRONBEAT_LEASE_SECONDS=3.0"],
    ),
    (
        {"FLOWER_PORT": "8000"},
        ["IRONBEAT_FLOWER_PORT=8000", "differ", "IRONBEAT_API_PORT=8000"],
    ),
]


@pytest.mark.parametrize(("names", "expected"), BAD)
def test_a_bad_value_is_named(load: Load, names: dict[str, str], expected: list[str]) -> None:
    with pytest.raises(SettingsError) as refused:
        load(**names)
    for part in expected:
        assert part in str(refused.value)
    assert "pw" not in str(refused.value)


def test_every_bad_value_is_named_at_once(load: Load) -> None:
    with pytest.raises(SettingsError) as refused:
        load(WORKER_COUNT="0", IRONBEAT_TIMEZONE="Mars")
    assert len(str(refused.value).splitlines()) == 2


# -- the file


def test_the_file_sets_and_the_environment_replaces(load: Load, env_file: Path) -> None:
    env_file.write_text("WORKER_COUNT=5\nexport IRONBEAT_TIMEZONE='UTC'\n# no\nFLOWER_PORT=\n")
    settings = load()
    assert (settings.worker_count, settings.timezone, settings.flower_port) == (5, "UTC", 5555)
    assert settings.env_file == env_file
    origins = {each.name: each.origin for each in describe(settings)}
    assert origins["worker_count"] == f"WORKER_COUNT ({env_file})"
    assert load(WORKER_COUNT="6").worker_count == 6


def test_a_dollar_in_the_file_is_a_dollar(load: Load, env_file: Path) -> None:
    env_file.write_text("FLOWER_BASIC_AUTH='ann:pa$HOME'\n")
    assert plain(load().flower_basic_auth) == "ann:pa$HOME"


def test_file_and_environment_may_not_differ_by_two_names(load: Load, env_file: Path) -> None:
    env_file.write_text("IRONBEAT_WORKER_COUNT=5\n")
    with pytest.raises(SettingsError) as refused:
        load(WORKER_COUNT="6")
    assert f"IRONBEAT_WORKER_COUNT=5 ({env_file})" in str(refused.value)
    assert "WORKER_COUNT=6 (environment)" in str(refused.value)


def test_a_file_that_everybody_reads_is_refused(load: Load, env_file: Path) -> None:
    env_file.chmod(0o644)
    with pytest.raises(SettingsError, match=f"chmod 640 {env_file}"):
        load()


def test_a_missing_file_is_named(load: Load, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"IRONBEAT_ENV_FILE=.*nowhere cannot be read"):
        load(IRONBEAT_ENV_FILE=str(tmp_path / "nowhere"))


# -- describing


def test_secrets_are_masked(load: Load) -> None:
    settings = load(
        DATABASE_URL="postgresql://ann:hush@db/x",
        CELERY_BROKER_URL="sentinel://:hush@a:1/1;sentinel://:hush@b:1/1",
        REDIS_URL="redis+socket:///run/r.sock?password=hush",
        FLOWER_BASIC_AUTH="ann:hush",
        IRONBEAT_API_TOKEN="hush",
        SENTRY_DSN="https://hush@sentry.example/1",
    )
    shown = {each.name: str(each.value) for each in describe(settings)}
    assert shown["database_url"] == "postgresql://ann:********@db/x"
    assert "hush" not in "".join(shown.values())
    assert "hush" not in repr(settings)


def test_derived_values_name_their_origin(load: Load) -> None:
    settings = load(REDIS_HOST="cache", IRONBEAT_TASK_TIME_LIMIT="1800")
    origins = {each.name: each.origin for each in describe(settings)}
    assert origins["broker_url"] == "derived from REDIS_HOST (environment)"
    assert origins["drain_seconds"] == "derived from IRONBEAT_TASK_TIME_LIMIT (environment)"
    assert origins["worker_count"] == "default"


def test_no_name_sets_two_settings() -> None:
    every = [name for field in Settings.model_fields for name in names_of(field)]
    assert len(every) == len(set(every))


def test_a_mistyped_name_is_told(load: Load) -> None:
    load(IRONBEAT_WORKER_COUNTS="3")
    assert unknown_names() == {"IRONBEAT_WORKER_COUNTS": "IRONBEAT_WORKER_COUNT"}
