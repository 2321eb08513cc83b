import json

import psycopg
import pytest
import redis

from ironbeat.cli.failures import CommandError, ExitStatus, explain, report, without_secrets


def test_every_exit_status_says_what_it_means() -> None:
    assert [status.value for status in ExitStatus] == list(range(len(ExitStatus)))
    assert all(status.meaning for status in ExitStatus)


def test_a_database_that_is_down_is_an_expected_error_that_says_what_to_do() -> None:
    with pytest.raises(psycopg.OperationalError) as down:
        psycopg.connect("postgresql://someone:secret@127.0.0.1:1/x", connect_timeout=1)
    explained = explain(down.value)
    assert explained is not None
    assert explained.status is ExitStatus.UNREACHABLE
    assert "PostgreSQL cannot be reached" in explained.message
    assert "IRONBEAT_DATABASE_URL" in explained.hint
    assert "secret" not in explained.message


def test_a_broker_that_is_down_is_an_expected_error() -> None:
    with pytest.raises(redis.ConnectionError) as down:
        redis.Redis(host="127.0.0.1", port=1).ping()
    explained = explain(down.value)
    assert explained is not None
    assert explained.status is ExitStatus.UNREACHABLE
    assert "Redis cannot be reached" in explained.message


def test_a_defect_keeps_its_traceback() -> None:
    assert explain(KeyError("x")) is None
    assert report(KeyError("x"), as_json=False) is None


def test_an_error_is_told_in_words_or_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    error = CommandError("it is so", "do that", ExitStatus.NOT_FOUND)
    assert report(error, as_json=False) == 3
    assert capsys.readouterr().err == "ironbeat: it is so\ndo that\n"
    assert report(error, as_json=True) == 3
    assert json.loads(capsys.readouterr().err) == {
        "error": "it is so",
        "hint": "do that",
        "status": "not_found",
    }


def test_passwords_in_urls_are_masked() -> None:
    text = "connect to redis://:s3cret@host:6379/1 and postgresql://me:pw@/x?host=/run failed"
    assert without_secrets(text) == (
        "connect to redis://:***@host:6379/1 and postgresql://me:***@/x?host=/run failed"
    )
