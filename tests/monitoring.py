"""The programs of monitoring, the file of rules, and what its expressions name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ironbeat.watch.catalogue import describe_metrics

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "roles" / "monitoring" / "files" / "rules.yml"
FETCHED = ROOT / ".cache" / "prometheus" / "usr" / "bin"

# Debian's Alertmanager looks for them there and nowhere else.
TEMPLATES = Path("/usr/share/prometheus/alertmanager/default.tmpl")

_LABELS = r"\{[^}]*\}"
_TEXTS = r"\"[^\"]*\"|'[^']*'"
_GROUPS = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
_RANGES = r"\[[^\]]*\]"
_WORDS = r"(?<![\w.])[a-zA-Z_:][\w:]*(?!\w)(?!\s*\()"
_OPERATORS = {"and", "or", "unless", "bool", "offset", "inf", "nan", "by", "without"}


def program(name: str) -> str:
    """The path of one of Debian's monitoring programs; skips the test where there is none."""
    found = FETCHED / name
    path = str(found) if found.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not here; scripts/prometheus fetches it from Debian's archive")
    if name == "prometheus-alertmanager" and not TEMPLATES.exists():
        pytest.skip(f"{TEMPLATES} is not here; scripts/prometheus puts it there when run as root")
    return path


def rules() -> list[dict[str, Any]]:
    """Every rule of the project."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def metrics_in(expression: str) -> set[str]:
    """The metrics that an expression of Prometheus' language names."""
    bare = re.sub(f"{_TEXTS}|{_LABELS}|{_RANGES}|{_GROUPS}", " ", expression)
    return {word for word in re.findall(_WORDS, bare) if word.lower() not in _OPERATORS}


def product_series() -> set[str]:
    """Every series that the code can expose."""
    return {series for each in describe_metrics() for series in each.series}


def seconds(duration: str) -> float:
    """A duration of Prometheus' (``1m30s``) in seconds."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([smhd])", duration))
