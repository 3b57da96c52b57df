"""Rules, their tests and the dashboard, by Prometheus' own checker; and that they ask for what the service tells."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from nanoswap.serve import metrics
from tests.deploy.files import DEPLOY, ROOT, tool

PROMETHEUS = DEPLOY / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
#: What the dashboard's variables may stand for.
VARIABLES = {"$__rate_interval": "5m", "$kind": "image|video"}
#: Of Prometheus itself and of its blackbox exporter.
FOREIGN = {"up", "probe_success", "probe_ssl_earliest_cert_expiry"}
#: What the text format puts behind the name of a family.
ENDS = {"gauge": ("",), "counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
_SELECTOR = re.compile(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"|\b(?:by|on|without|ignoring) ?\([^)]*\)")
_NAME = re.compile(r"\b(?:nanoswap[a-z_:]*|up|probe_[a-z_]+)\b")


@pytest.fixture
def promtool() -> str:
    found = tool("promtool")
    if found is None and os.environ.get("NANOSWAP_REQUIRE_PROMTOOL") != "1":
        pytest.skip("no promtool: apt-get install prometheus  |  brew install prometheus")
    assert found, "promtool is required here: it is in the Debian package prometheus"
    return found


def series() -> set[str]:
    """Every name under which Prometheus stores something of ours."""
    families = (*metrics.COUNTED, *metrics.ASKED)
    return {family.name + end for family in families for end in ENDS[family.type]}


def run(*command: str, folder: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def dashboard_expressions() -> list[str]:
    expressions = [target["expr"] for panel in panels() for target in panel["targets"]]
    for variable, value in VARIABLES.items():
        expressions = [expression.replace(variable, value) for expression in expressions]
    return expressions


def test_configuration_and_rules_are_valid(promtool: str) -> None:
    # Not whether files of secrets are there.
    run(promtool, "check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yml"))
    run(promtool, "check", "rules", *map(str, RULES))


def test_alerts_fire_when_they_should_and_only_then(promtool: str) -> None:
    run(promtool, "test", "rules", *(path.name for path in TESTS), folder=PROMETHEUS / "tests")


def test_every_alert_is_tested_silent_and_fired() -> None:
    cases = [
        case for path in TESTS for test in yaml.safe_load(path.read_text())["tests"] for case in test["alert_rule_test"]
    ]
    for alert in alerts():
        outcomes = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == alert["alert"]}
        assert outcomes == {True, False}, alert["alert"]


def test_dashboard_asks_in_the_language_of_prometheus(promtool: str, tmp_path: Path) -> None:
    expressions = dashboard_expressions()
    assert not [expression for expression in expressions if "$" in expression]
    made = [{"record": f"dashboard:panel{number}", "expr": text} for number, text in enumerate(expressions)]
    path = tmp_path / "dashboard.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": made}]}))
    run(promtool, "check", "rules", str(path))


def test_names_are_ones_that_the_service_tells() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    expressions = [rule["expr"] for rule in rules()] + dashboard_expressions()
    used = {name for text in expressions for name in _NAME.findall(_SELECTOR.sub(" ", text))}
    assert used <= series() | recorded | FOREIGN
    assert {"nanoswap_workers", "nanoswap:peak", "probe_success"} <= used


def test_series_of_the_tests_are_ones_that_the_service_tells() -> None:
    given = [test["input_series"] for path in TESTS for test in yaml.safe_load(path.read_text())["tests"]]
    names = {one["series"].partition("{")[0] for inputs in given for one in inputs}
    assert names <= series() | FOREIGN


def test_everything_the_service_tells_is_on_the_dashboard_or_an_alert() -> None:
    text = " ".join([rule["expr"] for rule in rules()] + dashboard_expressions())
    plain = {re.sub(r"_(?:bucket|sum|count)$", "", name) for name in series()}
    assert [name for name in sorted(plain) if name not in text] == []


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_alert_has_a_runbook_and_says_how_bad_it_is(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    page = ROOT / alert["annotations"]["runbook_url"]
    assert page.is_file()
    assert page.parent == ROOT / "docs" / "runbooks"
    assert f"`{alert['alert']}`" in page.read_text(), "the runbook doesn't say which alert it is for"


def test_panels_have_their_own_places() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()}) == len(panels())
    assert all(panel["title"] for panel in panels())
