"""An application that exists already keeps its tasks, names and configuration when adopted."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from celery import Celery
from celery.schedules import crontab
from tests.processes import TESTS, worker

import ironbeat
from ironbeat import TaskManager
from ironbeat.app import Platform, current_app
from ironbeat.settings import Settings, get_settings
from ironbeat.workload import WorkloadError

ORDERS = TESTS / "projects" / "orders"


@pytest.fixture
def orders(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setenv("ORDERS_BROKER", settings.broker_url.get_secret_value())
    monkeypatch.setenv("ORDERS_BACKEND", settings.result_backend.get_secret_value())
    monkeypatch.syspath_prepend(str(ORDERS))
    for name in ("orders", "orders.app"):
        sys.modules.pop(name, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("orders.app")
    yield module
    module.app.ironbeat.recorder.close(timeout=1)


def test_its_own_things_stay(orders: ModuleType) -> None:
    app = orders.app
    assert isinstance(app, Platform)
    assert isinstance(app, Celery)
    assert app.main == "orders"
    assert (app.conf.timezone, app.conf.task_default_queue) == ("Europe/Berlin", "orders")
    assert isinstance(app.conf.beat_schedule["report"]["schedule"], crontab)
    assert app.tasks["orders.report"].max_retries == 5
    assert app.tasks["orders.collect"](3) == "collected from 3"
    assert ironbeat.adopt(app) is app


def test_it_has_the_ledger_and_the_guard(orders: ModuleType, tmp_path: Path) -> None:
    with worker("orders.app", tmp_path / "w.log", "--pool", "solo", path=ORDERS):
        sent = orders.collect.delay(7)
        assert sent.get(timeout=15) == "collected from 7"
        manager = TaskManager(orders.app)
        assert manager.result(sent.id) == "collected from 7"
        durable = manager.submit("orders.collect", [8])
        assert manager.result(durable, timeout=15) == "collected from 8"
        assert manager.status(durable).queue == "orders"
        assert manager.result(manager.submit("ironbeat.prune"), timeout=15)["made"]


def test_commands_use_it_by_a_setting(orders: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRONBEAT_APP", "orders.app:app")
    get_settings.cache_clear()
    current_app.cache_clear()
    assert current_app() is orders.app
    for wrong, message in {
        "orders.nothing:app": "cannot be imported",
        "orders.app:__name__": "is a str, not a Celery application",
    }.items():
        monkeypatch.setenv("IRONBEAT_APP", wrong)
        get_settings.cache_clear()
        current_app.cache_clear()
        with pytest.raises(WorkloadError, match=message):
            current_app()
    current_app.cache_clear()
