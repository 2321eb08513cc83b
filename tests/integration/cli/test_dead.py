"""Dead letters on the command line: looked at, replayed once, dropped."""

import pytest

from ironbeat import database
from ironbeat.cli.failures import ExitStatus
from ironbeat.dispatch import TaskManager
from ironbeat.runs.ledger import Ledger


@pytest.fixture
def book(settings) -> Ledger:
    return Ledger(settings.database_url.get_secret_value())


@pytest.fixture
def dead(book: Ledger, run):
    """Makes runs of ``ironbeat.echo`` that a worker rejected."""

    def make(number: int) -> list[str]:
        manager = TaskManager()
        ids = [manager.submit("ironbeat.echo", [f"m{n}"]) for n in range(number)]
        for id in ids:
            book.end([id], "dead", "its worker died 3 times while running it", error="died")
        return ids

    return make


def test_they_are_listed_shown_and_dropped(run, dead, book) -> None:
    assert "no dead letters" in run("dead", "list")
    first, second = dead(2)
    listed = run("dead", "list", "--json")
    assert {each["id"] for each in listed} == {first, second}
    assert listed[0]["replayable"] is True
    assert listed[0]["reason"] == "its worker died 3 times while running it"
    assert run("dead", "list", "--task", "another", "--json") == []
    shown = run("dead", "show", first[:13], "--json")
    assert (shown["id"], shown["state"], shown["handled"]) == (first, "dead", None)

    run("dead", "drop", first, "--json", exit_status=ExitStatus.REFUSED)
    assert run("dead", "drop", first, "--yes", "--json") == {"dropped": [first]}
    assert [each["id"] for each in run("dead", "list", "--json")] == [second]
    assert run("dead", "list", "--handled", "--json")[1]["handled"] == "dropped"
    assert "already" in run("dead", "drop", first, "--yes", exit_status=ExitStatus.REFUSED)
    assert book.get(first).state == "dead"


def test_each_is_replayed_once(run, dead, book) -> None:
    one, *others = dead(3)
    [made] = run("dead", "replay", one, "--json")
    assert made["replays"] == one
    repeated = book.get(made["id"])
    assert (repeated.state, repeated.parent_id, repeated.argsrepr) == ("pending", one, "('m0',)")
    assert "replayed as" in run("dead", "replay", one, exit_status=ExitStatus.REFUSED)
    told = run("dead", "replay", "--all", "--task", "ironbeat.echo", "--yes", "--json")
    assert {each["replays"] for each in told} == set(others)
    assert run("dead", "list", "--json") == []
    assert run("dead", "replay", "--all", "--yes", "--json") == []


def test_a_run_whose_message_is_not_kept_stays_a_letter(run, dead, book) -> None:
    [id] = dead(1)
    with database.connection() as connection:
        connection.execute("UPDATE ironbeat.run_history SET message = NULL WHERE id = %s", (id,))
    assert "is not kept" in run("dead", "replay", id, exit_status=ExitStatus.REFUSED)
    assert [each["id"] for each in run("dead", "list", "--json")] == [id]


def test_what_is_not_dead_is_refused_and_nothing_is_done(run, dead, book) -> None:
    [letter] = dead(1)
    alive = TaskManager().submit("ironbeat.echo", ["x"])
    told = run("dead", "drop", letter, alive, "--yes", "--json", exit_status=ExitStatus.REFUSED)
    assert f"run {alive} is not dead" in told["error"]
    assert [each["id"] for each in run("dead", "list", "--json")] == [letter]
    run("dead", "show", "no-such-run", exit_status=ExitStatus.NOT_FOUND)
    run("dead", "drop", "--yes", exit_status=ExitStatus.USAGE)
    run("dead", "drop", letter, "--all", "--yes", exit_status=ExitStatus.USAGE)
