"""What is made of what was seen on a host."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scripts.ops.checks import Check, of_host, skews
from scripts.ops.health import page, verdict
from scripts.ops.snapshot import Program, Snapshot

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WELL: dict[str, Any] = {
    "disks": [{"path": "/", "total": 100e9, "free": 50e9, "free_nodes": 0.9}],
    "memory": {"total_kb": 8_000_000, "available_kb": 4_000_000},
    "pidfiles": {},
}
HEALTHY = {"status": "healthy", "checks": {"database": "ok", "redis": "ok", "beat": "ok"}}


def program(name: str, pid: int = 10, **more: Any) -> Program:
    values = {"state": "running", "seconds": 60, "memory_mb": 90.0, "release": None} | more
    return Program(host="one", group=name.partition("_")[0], name=name, pid=pid, **values)


def checks(
    facts: dict[str, Any] | None = None,
    programs: tuple[Program, ...] = (),
    health: Any = None,
    skew: float | None = None,
) -> list[Check]:
    seen = Snapshot("one", programs=programs, facts=WELL | (facts or {}))
    return of_host(seen, health, skew, NOW)


def bad(found: list[Check]) -> dict[str, str]:
    return {check.name: check.said for check in found if check.verdict == "bad"}


def test_a_pidfile_of_any_supervised_program_is_its_own() -> None:
    files = {"dashboard": {"pid": 10, "locked": True}}
    assert bad(checks({"pidfiles": files}, (program("dashboard"),))) == {}
    assert "pidfiles" in bad(checks({"pidfiles": files}, (program("dashboard", pid=11),)))


def warnings(found: list[Check]) -> dict[str, str]:
    return {check.name: check.said for check in found if check.verdict == "warning"}


def test_a_host_in_order_has_no_complaint() -> None:
    files = {"worker_00": {"pid": 10, "locked": True}}
    found = checks({"pidfiles": files}, (program("worker_00"),), HEALTHY, 0.0)
    assert verdict(found) == "healthy"
    assert {check.name for check in found} >= {"database", "redis", "pidfiles", "clock", "disk /"}


def test_a_host_that_cannot_be_reached_is_one_bad_check() -> None:
    (check,) = of_host(Snapshot("one", unreachable="refused"), None, None, NOW)
    assert (check.verdict, check.said) == ("bad", "refused")


def test_what_the_suite_says_is_bad_or_a_warning_by_its_own_verdict() -> None:
    down = {"status": "unhealthy", "checks": {"database": "ok", "redis": "connection refused"}}
    assert bad(checks(health=down)) == {"redis": "connection refused"}
    fallback = down | {"status": "degraded"}
    assert warnings(checks(health=fallback)) == {"redis": "connection refused"}
    assert bad(checks(health="not installed")) == {"suite": "not installed"}


@pytest.mark.parametrize(
    ("free", "nodes", "expected"),
    [(50, 0.9, "ok"), (9, 0.9, "warning"), (2, 0.9, "bad"), (50, 0.04, "warning"), (9, 0.0, "bad")],
)
def test_disks_fill_up_by_room_or_by_inodes(free: float, nodes: float, expected: str) -> None:
    disk = {"path": "/", "total": 100e9, "free": free * 1e9, "free_nodes": nodes}
    (check,) = [each for each in checks({"disks": [disk]}) if each.name == "disk /"]
    assert check.verdict == expected


def test_pidfiles_that_tell_another_pid_are_drift() -> None:
    programs = (program("worker_00"), program("worker_01", 11), program("beat", 12))
    files = {
        "worker_00": {"pid": 99, "locked": False},
        "beat": {"pid": 12, "locked": True},
        "flower": {"pid": 77, "locked": True},
        "api": {"pid": 78, "locked": False},
    }
    said = [check.said for check in checks({"pidfiles": files}, programs) if check.verdict == "bad"]
    assert said == [
        "worker_00.pid says 99; it runs as 10",
        "worker_01.pid is missing; it runs as 11",
        "flower.pid is held by process 77, which supervisord does not know",
    ]


def test_a_process_that_has_just_started_may_not_have_its_pidfile_yet() -> None:
    assert bad(checks(programs=(program("worker_00", seconds=2),))) == {}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"status": 401, "body": ""}, "ok"),
        ({"status": 200, "body": ""}, "bad"),
        ({"status": 502, "body": ""}, "bad"),
        ({"error": "connection refused"}, "bad"),
    ],
)
def test_flower_must_ask_for_its_password(answer: dict[str, Any], expected: str) -> None:
    (check,) = [each for each in checks({"http": {"flower": answer}}) if each.name == "flower"]
    assert check.verdict == expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, json.dumps(HEALTHY), "ok"),
        (200, json.dumps(HEALTHY | {"status": "degraded"}), "warning"),
        (503, json.dumps({"status": "unhealthy", "checks": {"redis": "no answer"}}), "bad"),
        (401, "", "ok"),
        (200, "<html>", "bad"),
    ],
)
def test_the_api_is_judged_by_its_own_words(status: int, body: str, expected: str) -> None:
    answer = {"status": status, "body": body}
    (check,) = [each for each in checks({"http": {"api": answer}}) if each.name == "api"]
    assert check.verdict == expected


def certificate(days: float, name: str = "one") -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=400))
        .not_valid_after(NOW + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("days", "expected"), [(90, "ok"), (20, "warning"), (3, "bad"), (-1, "bad")]
)
def test_a_certificate_is_looked_at_before_it_expires(days: float, expected: str) -> None:
    pem = certificate(days)
    found = [
        x for x in checks({"certificate": {"file": pem, "served": pem}}) if x.name == "certificate"
    ]
    assert [check.verdict for check in found] == [expected]


def test_a_certificate_that_is_not_the_one_in_its_file_is_drift() -> None:
    told = {"file": certificate(90), "served": certificate(90)}
    assert "reload nginx" in bad(checks({"certificate": told}))["certificate"]
    assert bad(checks({"certificate": None})) == {"certificate": "its file cannot be read"}


def test_an_older_release_is_a_warning() -> None:
    seen = Snapshot("one", release="new", programs=(program("beat", release="old"),), facts=WELL)
    assert "release" in warnings(of_host(seen, None, None, NOW))


def clock(host: str, offset: float, asked: float = 100.0, answered: float = 100.2) -> Snapshot:
    taken = (asked + answered) / 2 + offset
    facts = {"time": taken, "asked_at": asked, "answered_at": answered}
    return Snapshot(host, facts=facts)


def test_a_clock_is_measured_against_the_others() -> None:
    found = skews([clock("a", 0.0), clock("b", 0.01), clock("c", 30.0)])
    assert found["a"] == found["b"] == 0.0
    assert found["c"] == pytest.approx(29.9, abs=0.2)
    assert "clock" in bad(checks(skew=found["c"]))
    assert "clock" in warnings(checks(skew=-2.0))


def test_a_laptop_whose_clock_is_wrong_accuses_nobody() -> None:
    assert set(skews([clock(name, 3600.0) for name in "abc"]).values()) == {0.0}


def test_a_slow_answer_is_no_wrong_clock() -> None:
    slow = clock("slow", 3.0, asked=100.0, answered=108.0)
    assert skews([clock("a", 0.0), clock("b", 0.0), slow])["slow"] == 0.0


def test_the_page_tells_what_is_well_in_a_line_and_the_rest_one_by_one() -> None:
    lines = page(checks({"disks": []}, health=HEALTHY, skew=-2.0))
    assert lines[-1] == "degraded"
    assert any("reachable, database, redis, beat, memory" in line for line in lines)
    assert any("2.0 s behind the others" in line for line in lines)
