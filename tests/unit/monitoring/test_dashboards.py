"""The dashboards for Grafana: whole, and of metrics that exist."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.monitoring import ROOT, metrics_in, product_series, program

BOARDS = sorted((ROOT / "roles" / "monitoring" / "files" / "grafana").glob("*.json"))


def panels(board: Path) -> list[dict[str, Any]]:
    return json.loads(board.read_text())["panels"]


def expressions(board: Path) -> list[str]:
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


def test_there_are_some():
    assert {board.stem for board in BOARDS} == {"overview", "scheduler"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_a_dashboard_is_whole(board):
    found = json.loads(board.read_text())
    assert found["uid"] == f"ironbeat-{board.stem}" and found["title"].startswith("Ironbeat: ")
    ids = [panel["id"] for panel in found["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in found["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        assert panel["title"] and panel["targets"]
        assert panel["datasource"]["uid"] == "${datasource}"
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_its_expressions_name_what_exists(board):
    missing = {name for text in expressions(board) for name in metrics_in(text)}
    assert missing - product_series() - {"ALERTS"} == set()


def test_prometheus_understands_every_expression(tmp_path):
    asked = [text for board in BOARDS for text in expressions(board)]
    rules = [{"record": f"panel_{number}", "expr": text} for number, text in enumerate(asked)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_show_most_of_what_there_is():
    shown = {name for board in BOARDS for text in expressions(board) for name in metrics_in(text)}
    # Histograms have three series each, of which one is drawn.
    assert len(shown & product_series()) > len(product_series()) / 2
