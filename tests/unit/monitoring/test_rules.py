"""The file of alert rules: right for Prometheus, for the owners' limits, and for what exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.monitoring import ROOT, RULES, metrics_in, product_series, program, rules, seconds

from ironbeat.watch import catalogue
from ironbeat.watch.limits import Measured, judge_limits

TESTS = Path(__file__).with_name("rules_test.yml")
# Counts that exporters bring, each checked against the exporter itself where alerts are fired.
OF_EXPORTERS = {
    "up",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
    "probe_ssl_earliest_cert_expiry",
}
# Scrape and evaluation (15 s each), and Alertmanager's group_wait.
ON_THE_WAY_SECONDS = 40


def test_promtool_finds_them_right_and_their_tests_pass():
    for arguments in (("check", "rules", RULES), ("test", "rules", TESTS)):
        done = subprocess.run(
            [program("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_test():
    named = set(re.findall(r'alertname(?:=~?"|: )([^",\n]+)', TESTS.read_text()))
    patterns = [re.compile(each) for each in named]
    untested = [
        rule["alert"]
        for rule in rules()
        if not any(pattern.fullmatch(rule["alert"]) for pattern in patterns)
    ]
    assert untested == []


def test_every_metric_that_a_rule_names_exists_in_the_code():
    known = product_series() | OF_EXPORTERS
    texts = [rule["expr"] for rule in rules()]
    texts += [
        query
        for rule in rules()
        for query in re.findall(r'query "([^"]+)"', rule["annotations"]["description"])
    ]
    missing = {name for text in texts for name in metrics_in(text)} - known
    assert missing == set()
    assert sum(len(metrics_in(rule["expr"])) for rule in rules()) >= len(rules())


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_rule_says_what_to_do_and_when_it_arrives(rule):
    about = rule["annotations"]
    assert (ROOT / about["runbook"]).is_file()
    assert rule["labels"]["severity"] in ("critical", "warning", "info", "none")
    assert about["summary"] and about["description"]
    assert seconds(about["arrives"]) >= seconds(rule.get("for", "0s")) + ON_THE_WAY_SECONDS


def test_names_are_told_once_and_no_runbook_is_left_over():
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    linked = {Path(rule["annotations"]["runbook"]).name for rule in rules()}
    assert linked == {path.name for path in (ROOT / "docs" / "runbooks").glob("*.md")}


def test_the_limits_are_the_rules_under_the_same_names_with_the_same_figures():
    limits = judge_limits(Measured())
    by_name = {rule["alert"]: rule for rule in rules()}
    for limit in limits:
        rule = by_name[limit.name]
        assert rule["labels"]["severity"] == limit.severity, limit.name
        # What is well in the report ("< 10", "≤ 1000", "> 0") and what alarms are complements.
        operator, figure = re.fullmatch(r"(.*) ([><=]+) ([\d.]+)\s*", rule["expr"], re.S).groups()[
            1:
        ]
        assert float(figure) == limit.threshold, limit.name
        alarm = {"<": {">="}, "≤": {">"}, ">": {"<=", "=="}}[limit.bound.split()[0]]
        assert operator in alarm, limit.name


def test_the_page_of_metrics_is_what_the_code_says():
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page == catalogue.markdown(), "run `ironbeat metrics --markdown > docs/metrics.md`"


def test_every_metric_is_explained():
    for each in catalogue.describe_metrics():
        assert each.meaning.endswith(".") and len(each.meaning) > 15, each.name
        assert re.fullmatch(r"ironbeat(_[a-z]+)*", each.name)


def test_the_file_holds_nothing_but_alerts():
    assert all("alert" in rule for rule in rules())
    assert yaml.safe_load(RULES.read_text()).keys() == {"groups"}
