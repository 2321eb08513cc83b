"""Prometheus, Alertmanager and the exporters watch the host that they run on."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hosts import Host, Suite, wait_until

SERVICES = (
    "prometheus",
    "prometheus-alertmanager",
    "prometheus-node-exporter",
    "prometheus-postgres-exporter",
    "prometheus-redis-exporter",
)


@pytest.fixture(scope="module")
def host(suite: Suite) -> Host:
    return suite.one("monitoring")


def ask(host: Host, path: str) -> Any:
    """The JSON that Prometheus or Alertmanager answers; nothing while it does not."""
    done = host.run(
        "python3 -c 'import sys, urllib.request as u;"
        f' sys.stdout.write(u.urlopen("http://127.0.0.1:{path}", timeout=5).read().decode())\''
    )
    return json.loads(done.stdout) if done.returncode == 0 else {}


@pytest.mark.parametrize("service", SERVICES)
def test_it_runs_and_will_after_a_boot(host: Host, service: str) -> None:
    assert host.out(f"systemctl is-active {service}") == "active"
    assert host.out(f"systemctl is-enabled {service}") == "enabled"


def test_everything_is_read(host: Host) -> None:
    def health() -> dict[str, str]:
        found = ask(host, "9090/api/v1/targets").get("data", {}).get("activeTargets", [])
        return {each["labels"]["job"]: each["health"] for each in found}

    wait_until(lambda: set(health().values()) == {"up"}, 90, "every target is up")
    assert set(health()) >= {"ironbeat", "node", "postgres", "redis", "prometheus", "alertmanager"}

    def value(figure: str) -> list[str]:
        answer = ask(host, f"9090/api/v1/query?query={quote(figure)}")
        return [each["value"][1] for each in answer.get("data", {}).get("result", [])]

    # Beside other work a server may miss a scrape.
    for figure in ("pg_up", "redis_up", "sum(ironbeat_up) / 2"):
        wait_until(lambda each=figure: value(each) == ["1"], 60, figure)


def test_alerts_arrive_at_alertmanager_and_name_their_runbook(host: Host) -> None:
    path = f"9093/api/v2/alerts?filter={quote('alertname=alerts_arrive')}"
    wait_until(lambda: ask(host, path), 90, "the alert that is always there")
    [alert] = ask(host, path)
    assert alert["annotations"]["runbook"] == "docs/runbooks/alerts_arrive.md"


def test_its_pages_are_on_loopback_alone(host: Host) -> None:
    ports = ("9090", "9093", "9094", "9100", "9121", "9187")
    listening = [line.split()[3] for line in host.out("ss -Hltn").splitlines()]
    ours = [address for address in listening if address.rsplit(":", 1)[-1] in ports]
    assert len(ours) == 5
    assert all(address.startswith("127.0.0.1:") for address in ours), ours


def test_no_secret_of_the_exporters_can_be_read_by_others(host: Host) -> None:
    assert "postgresql://" not in host.out("ps axo args")
    for name in ("prometheus-postgres-exporter", "prometheus-redis-exporter"):
        assert host.out(f"stat -c %a:%U /etc/default/{name}") == "600:root"
    assert host.out("stat -c %a:%G /etc/prometheus/alertmanager.yml") == "640:prometheus"
