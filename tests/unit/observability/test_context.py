"""What a line is about is found whatever state the process is in."""

import sys
import types

from ironbeat.observability import context


def test_celery_half_imported_by_another_thread(monkeypatch):
    monkeypatch.setitem(sys.modules, "celery._state", types.ModuleType("celery._state"))
    assert "task" not in context.current()


def test_bindings_nest_and_end():
    with context.bound(run_id="a", schedule="s"):
        with context.bound(run_id="b"):
            assert context.current()["run_id"] == "b"
            assert context.current()["schedule"] == "s"
        assert context.current()["run_id"] == "a"
    assert "run_id" not in context.current()
