import pytest

from ironbeat.cli.failures import ExitStatus
from ironbeat.settings import get_settings


@pytest.fixture(autouse=True)
def fresh_settings():
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_every_setting_is_shown_with_its_origin_and_no_secret(run, monkeypatch) -> None:
    monkeypatch.setenv("WORKER_COUNT", "3")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:s3cret@broker.internal:6379/4")
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "admin:s3cret")
    output = run("settings")
    assert "WORKER_COUNT (environment)" in output
    assert "broker.internal:6379/4" in output
    assert "s3cret" not in output
    by_name = {each["name"]: each for each in run("settings", "--json")}
    assert by_name["worker_count"]["value"] == 3
    assert by_name["api_port"]["origin"] == "default"
    assert "s3cret" not in str(by_name)


def test_one_setting_is_found_by_any_of_its_names(run, monkeypatch) -> None:
    monkeypatch.setenv("WORKER_COUNT", "3")
    for name in ("worker_count", "WORKER_COUNT", "IRONBEAT_WORKER_COUNT"):
        assert [each["value"] for each in run("settings", name, "--json")] == [3]
    assert [each["name"] for each in run("settings", "--changed", "--json")][-1:] != ["api_port"]
    told = run("settings", "no_such_thing", exit_status=ExitStatus.NOT_FOUND)
    assert "'no_such_thing'" in told


def test_a_mistyped_name_is_told(run, monkeypatch) -> None:
    monkeypatch.setenv("IRONBEAT_WORKER_COUNTS", "3")
    told = "IRONBEAT_WORKER_COUNTS is set, but there is no such setting"
    assert f"{told}; did you mean IRONBEAT_WORKER_COUNT?" in run("settings")


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"WORKER_CONCURRENCY": "2", "CELERY_WORKER_CONCURRENCY": "3"}, "CELERY_WORKER"),
        ({"IRONBEAT_TASK_TIME_LIMIT": "10"}, "IRONBEAT_TASK_SOFT_TIME_LIMIT"),
        ({"IRONBEAT_TIMEZONE": "Asia/Taipeh"}, "Asia/Taipeh"),
        ({"WORKER_COUNT": "many"}, "WORKER_COUNT=many"),
    ],
)
def test_contradictions_and_bad_values_are_named(run, monkeypatch, environment, named) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for command in (["settings"], ["worker"], ["beat"], ["db", "check"]):
        assert named in run(*command, exit_status=ExitStatus.SETTINGS)
