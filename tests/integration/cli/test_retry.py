"""Replaying what failed, with a worker that runs it again."""

import importlib
import sys
import warnings

import pytest
from tests.processes import TESTS, wait_for, worker

from ironbeat.cli.failures import ExitStatus
from ironbeat.settings import get_settings


@pytest.fixture
def shop(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACES", str(tmp_path / "traces"))
    monkeypatch.setenv("IRONBEAT_APP", "adopted:app")
    monkeypatch.syspath_prepend(str(TESTS / "integration" / "apps"))
    sys.modules.pop("adopted", None)
    get_settings.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("adopted")
    yield module
    module.app.ironbeat.recorder.close(timeout=1)


def test_what_failed_or_died_runs_again_as_a_new_run(shop, run, tmp_path) -> None:
    with worker("adopted", tmp_path / "worker.log", "--pool", "solo"):
        # Plain tasks: only the message that was delivered holds their arguments.
        failed, dead, passed = (
            sent.id
            for sent in (shop.add.delay(1, "x"), shop.rejecting.delay(), shop.add.delay(1, 2))
        )

        def states() -> dict[str, str]:
            return {each["id"]: each["state"] for each in run("runs", "--json")}

        wait_for(
            lambda: states() == {failed: "failed", dead: "dead", passed: "succeeded"}, seconds=30
        )
        told = run("retry", failed, "--wait", "--timeout", "30", "--json", exit_status=1)
        assert told["id"] != failed
        assert (told["parent_id"], told["state"], told["args"]) == (failed, "failed", "(1, 'x')")
        assert "TypeError" in told["error"]
        assert run("task", failed, "--json")["state"] == "failed"

        again = run("retry", dead[:13], "--json")
        assert again["replays"] == dead
        wait_for(lambda: states().get(again["id"]) == "dead", seconds=30)

    assert "succeeded" in run("retry", passed, exit_status=ExitStatus.REFUSED)
    assert "is not kept" in run("retry", passed, "--again", exit_status=ExitStatus.REFUSED)
    run("retry", "no-such-run", exit_status=ExitStatus.NOT_FOUND)
    assert len(states()) == 5


def test_what_has_not_ended_is_not_replayed(shop, run) -> None:
    waiting = run("schedule", "add", "x", "--task", "adopted.add", "--args", "[1, 2]", "--every",
                  "1h", "--json")["name"]  # fmt: skip
    id = run("schedule", "run", waiting, "--json")["id"]
    told = run("retry", id, "--json", exit_status=ExitStatus.REFUSED)
    assert "has not ended" in told["error"]
    run("cancel", id)
    assert run("retry", id, "--json")["replays"] == id
