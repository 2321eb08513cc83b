import pytest

from ironbeat.app import create_app
from ironbeat.cli.failures import ExitStatus
from ironbeat.dispatch import TaskManager


@pytest.fixture
def waiting(settings):
    """Five durable and two plain tasks that wait in `default`, of two priorities; no worker."""
    app = create_app(settings)
    manager = TaskManager(app)
    ids = [manager.submit("ironbeat.echo", (str(n),), priority=n) for n in (0, 0, 0, 9, 9)]
    app.loader.import_default_modules()
    for text in ("a", "b"):
        ids.append(app.tasks["ironbeat.echo"].delay(text).id)
    app.ironbeat.recorder.flush()
    yield ids
    app.close()


def test_purging_asks_first_and_then_empties_broker_and_ledger(waiting, settings, run) -> None:
    assert "--yes" in run("purge", "--queue", "default", exit_status=ExitStatus.REFUSED)
    assert len(run("runs", "--state", "live", "--json")) == 7

    assert run("purge", "--queue", "default", "--yes", "--json") == {
        "queue": "default",
        "messages": 7,
        "runs": 7,
    }
    assert run("runs", "--state", "live", "--json") == []
    found = run("task", waiting[0], "--json")
    assert (found["state"], found["reason"]) == ("cancelled", "its queue was purged")
    status = run("status", "--json", exit_status=ExitStatus.FAILED)
    assert [queue["length"] for queue in status["queues"] if queue["name"] == "default"] == [0]
    assert run("purge", "-Q", "default", "--yes", "--json")["runs"] == 0


def test_an_unknown_queue_is_not_found_and_nothing_is_purged(waiting, run) -> None:
    told = run("purge", "--queue", "defualt", "--yes", exit_status=ExitStatus.NOT_FOUND)
    assert "'defualt'" in told and "default" in told
    assert len(run("runs", "--state", "live", "--json")) == 7


def test_a_broker_that_is_down_is_told_and_the_ledger_is_left_alone(
    waiting, run, monkeypatch
) -> None:
    from ironbeat.settings import get_settings

    monkeypatch.setenv("IRONBEAT_BROKER_URL", "redis://127.0.0.1:1/1")
    get_settings.cache_clear()
    told = run("purge", "--queue", "default", "--yes", exit_status=ExitStatus.UNREACHABLE)
    assert "Redis cannot be reached" in told
    assert len(run("runs", "--state", "live", "--json")) == 7
