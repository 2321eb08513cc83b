import psycopg
import pytest

from ironbeat.cli.failures import ExitStatus
from ironbeat.settings import get_settings


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, empty_database_url: str) -> str:
    monkeypatch.setenv("IRONBEAT_DATABASE_URL", empty_database_url)
    get_settings.cache_clear()
    return empty_database_url


def test_the_tables_are_made_once(empty, run) -> None:
    pending = run("db", "check", "--json", exit_status=ExitStatus.FAILED)["pending"]
    assert pending[0] == "0001_platform"
    assert run("db", "upgrade", "--json") == {"applied": pending}
    assert run("db", "upgrade", "--json") == {"applied": []}
    assert run("db", "check", "--json") == {"pending": []}
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT count(*) FROM ironbeat.runs").fetchone() == (0,)


def test_a_command_before_the_tables_exist_says_how_to_make_them(empty, run) -> None:
    told = run("db", "check", exit_status=ExitStatus.FAILED)
    assert "ironbeat db upgrade" in told


def test_going_back_asks_first_and_then_does_it(settings, run) -> None:
    refused = run("db", "downgrade", "ironbeat", exit_status=ExitStatus.REFUSED)
    assert "--yes" in refused
    assert run("db", "check", "--json") == {"pending": []}
    run("db", "downgrade", "ironbeat", "--yes")
    assert run("db", "check", "--json", exit_status=1)["pending"][0] == "0001_platform"


def test_an_unknown_branch_or_revision_changes_nothing(settings, run) -> None:
    told = run("db", "downgrade", "payroll", "--yes", exit_status=ExitStatus.NOT_FOUND)
    assert "'payroll'" in told and "ironbeat" in told
    told = run("db", "downgrade", "ironbeat", "9999", "--yes", exit_status=ExitStatus.SETTINGS)
    assert "9999" in told
    assert run("db", "check", "--json") == {"pending": []}


def test_a_database_ahead_of_this_program_is_refused(settings, run) -> None:
    with psycopg.connect(settings.database_url.get_secret_value()) as connection:
        connection.execute("UPDATE public.ironbeat_version SET version_num = '9999_future'")
    told = run("db", "upgrade", exit_status=ExitStatus.SETTINGS)
    assert "9999_future" in told


def test_a_database_that_is_down_is_told_in_json_too(run, monkeypatch) -> None:
    monkeypatch.setenv("IRONBEAT_DATABASE_URL", "postgresql://me:s3cret@127.0.0.1:1/x")
    get_settings.cache_clear()
    told = run("db", "upgrade", "--json", exit_status=ExitStatus.UNREACHABLE)
    assert told["status"] == "unreachable"
    assert "s3cret" not in str(told)
    get_settings.cache_clear()
