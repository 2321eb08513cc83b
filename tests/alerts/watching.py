"""Prometheus and Alertmanager for real, over one installation, with a receiver at the end."""

from __future__ import annotations

import json
import os
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.monitoring import RULES, program, rules, seconds
from tests.processes import Program, wait_for
from tests.receiver import Receiver, receiver

# As long as `/metrics` may take while a server hangs, and more.
SCRAPE_SECONDS = 4.0
# What looks back needs some figures to look at.
LEAST_LOOK_SECONDS = 15.0

FACTOR = 0.1
# How long an alert may take to end after its cause has: what it looks back on, and the way.
END_SECONDS = 240.0
STATED = {rule["alert"]: seconds(rule["annotations"]["arrives"]) for rule in rules()}

_RANGE = re.compile(r"\[([0-9smhd]+)\]")


def scaled(text: str, factor: float) -> str:
    """The rules with everything that waits or looks back shortened to ``factor`` of it.

    What is left as it is: the limits themselves, also those that are lengths of time.
    """
    rules = yaml.safe_load(text)
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = _short(rule["for"], factor)
            rule["expr"] = _RANGE.sub(
                lambda m: f"[{_short(m[1], factor, LEAST_LOOK_SECONDS)}]", rule["expr"]
            )
    return yaml.safe_dump(rules, allow_unicode=True)


def _short(duration: str, factor: float, least: float = 0.0) -> str:
    return f"{max(1, round(max(least, seconds(duration) * factor)))}s"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Watching:
    """What arrived at the receiver, and when."""

    def __init__(self, received: Receiver, prometheus: int) -> None:
        self.received = received
        self._prometheus = prometheus

    def told(self, name: str, status: str, since: float) -> list[dict[str, Any]]:
        """The alerts of a name that arrived with a status after ``since`` (seconds, epoch)."""
        found = []
        for each in list(self.received.received):
            if each.at < since or each.path != "/alerts":
                continue
            for alert in json.loads(each.body)["alerts"]:
                if alert["labels"]["alertname"] == name and alert["status"] == status:
                    found.append({**alert, "at": each.at})
        return found

    def firing(self) -> set[str]:
        """The names of what fires now, by Prometheus itself."""
        url = f"http://127.0.0.1:{self._prometheus}/api/v1/alerts"
        with urllib.request.urlopen(url, timeout=5) as answer:
            alerts = json.loads(answer.read())["data"]["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def until(self, name: str, status: str, since: float, patience: float) -> float:
        """Seconds from ``since`` until an alert arrived with that status."""
        deadline = since + patience
        while not (found := self.told(name, status, since)):
            if time.time() > deadline:
                raise AssertionError(f"{name} {status}: not within {patience:.0f} s")
            time.sleep(0.2)
        return min(each["at"] for each in found) - since


@contextmanager
def watching(
    directory: Path, targets: dict[str, list[str]], *, factor: float, scrape: float = SCRAPE_SECONDS
) -> Iterator[Watching]:
    """Run both programs on free ports, with the project's rules, until the block ends."""
    with ExitStack() as stack:
        received = stack.enter_context(receiver())
        prometheus, alertmanager = free_port(), free_port()
        (directory / "rules.yml").write_text(scaled(RULES.read_text(), factor))
        (directory / "prometheus.yml").write_text(_prometheus(targets, alertmanager, scrape))
        (directory / "alertmanager.yml").write_text(_alertmanager(received.url))
        for name, arguments in (
            (
                "prometheus-alertmanager",
                [
                    f"--config.file={directory / 'alertmanager.yml'}",
                    f"--storage.path={directory / 'am'}",
                    f"--web.listen-address=127.0.0.1:{alertmanager}",
                    "--cluster.listen-address=",
                ],
            ),
            (
                "prometheus",
                [
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{prometheus}",
                    # What fired before Alertmanager was found is told again after a minute else.
                    "--rules.alert.resend-delay=5s",
                ],
            ),
        ):
            run = Program([program(name), *arguments], directory / f"{name}.log", {})
            stack.callback(run.stop)
        found = Watching(received, prometheus)
        # The alert that is always there: the whole way works.
        wait_for(lambda: found.told("alerts_arrive", "firing", 0), seconds=60, program=run)
        yield found


def _prometheus(targets: dict[str, list[str]], alertmanager: int, scrape: float) -> str:
    jobs: list[dict[str, Any]] = []
    for name, addresses in targets.items():
        job: dict[str, Any] = {"job_name": name, "static_configs": [{"targets": addresses}]}
        if name == "certificate":
            # As in the role: the exporter is asked about the target.
            exporter, target = addresses
            job |= {"metrics_path": "/probe", "params": {"module": ["certificate"]}}
            job["static_configs"] = [{"targets": [target]}]
            job["relabel_configs"] = [
                {"source_labels": ["__address__"], "target_label": "__param_target"},
                {"source_labels": ["__param_target"], "target_label": "instance"},
                {"target_label": "__address__", "replacement": exporter},
            ]
        jobs.append(job)
    every = f"{scrape:g}s"
    return yaml.safe_dump(
        {
            "global": {
                "scrape_interval": every,
                "scrape_timeout": every,
                "evaluation_interval": every,
            },
            "rule_files": ["rules.yml"],
            "alerting": {
                "alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]
            },
            "scrape_configs": jobs,
        }
    )


def _alertmanager(url: str) -> str:
    return yaml.safe_dump(
        {
            "route": {
                "receiver": "test",
                "group_by": ["..."],
                "group_wait": "1s",
                "group_interval": "1s",
                "repeat_interval": "1h",
            },
            "receivers": [
                {
                    "name": "test",
                    "webhook_configs": [{"url": f"{url}/alerts", "send_resolved": True}],
                }
            ],
        }
    )


def report(lines: list[str]) -> None:
    """What was measured, for whoever runs this with ``-s`` or keeps the file."""
    print("\n" + "\n".join(lines))
    if path := os.environ.get("IRONBEAT_ALERTS_REPORT"):
        with Path(path).open("a") as output:
            output.write("\n".join(lines) + "\n")
