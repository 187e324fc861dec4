"""Alerts, dashboard and scaler ask for what the exporter tells, and Prometheus understands them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from db.exposed import METRICS

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "facesieve.json").read_text())
SCALER = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "keda" / "scaledobject.yaml").read_text())
QUERY = SCALER["spec"]["triggers"][0]["metadata"]["query"].strip()
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
PAGE = (ROOT / "docs" / "metrics.md").read_text()
#: Of each series, by its name, the labels: a histogram has three kinds.
SERIES = {
    f"{metric.name}{suffix}": {*metric.labels, *(["le"] if suffix == "_bucket" else [])}
    for metric in METRICS
    for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: it is in Debian's package prometheus"
)


def panel_expressions() -> Iterator[tuple[str, str]]:
    """The expressions of the dashboard, as Grafana would send them."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")


EXPRESSIONS = [
    *((f"panel {title}, {number}", text) for number, (title, text) in enumerate(panel_expressions())),
    *((f"alert {rule['alert']}", rule["expr"]) for rule in ALERTS),
    ("scaler", QUERY),
]


def run(*words: object, folder: Path = PROMETHEUS) -> None:
    """Run promtool, which must have nothing to complain of."""
    done = subprocess.run(["promtool", *map(str, words)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_an_expression_asks_for_series_and_labels_that_the_exporter_tells(where: str, expression: str) -> None:
    used = re.findall(r"\b(facesieve_\w+)(?:\{(.*?)\})?", expression)
    assert used
    labels: set[str] = set()
    for name, matchers in used:
        assert name in SERIES
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', "", matchers)))
        assert asked <= SERIES[name], name
        labels |= SERIES[name]
    grouped = re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", expression)
    assert {label.strip() for group in grouped for label in group.split(",")} <= labels


def test_the_model_of_the_dashboard_is_chosen_from_what_the_exporter_tells() -> None:
    (model,) = [variable for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", model["query"]["query"]).groups()
    assert label in SERIES[name]


def test_the_panels_of_the_dashboard_have_names_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["datasource"]["uid"] == "${datasource}" for panel in panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        is_beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        is_above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert is_beside or is_above


def test_the_legends_of_the_dashboard_name_labels_that_the_series_have() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            name = re.search(r"facesieve_\w+", target["expr"])[0]
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= SERIES[name]


def test_grafana_is_told_where_dashboards_and_prometheus_are() -> None:
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "facesieve.yml").read_text())["providers"]
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"


def test_prometheus_scrapes_the_exporter_of_the_compose_file_and_reads_the_alerts() -> None:
    settings = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (target,) = settings["scrape_configs"][0]["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    command = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][host]["command"]
    assert command == ["db", "metrics", "--address", "0.0.0.0", "--port", port]
    assert settings["rule_files"] == ["alerts.yml"]


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do_and_is_tested(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "runbook"} == rule["annotations"].keys()
    tests = [
        case
        for test in yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == rule["alert"]
    ]
    assert {bool(case.get("exp_alerts")) for case in tests} == {True, False}
    assert f"`{rule['alert']}`" in PAGE


def test_the_page_lists_every_metric_as_it_is() -> None:
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.text} |"
        for metric in METRICS
    ]
    assert re.findall(r"^\| `facesieve_.*", PAGE, re.MULTILINE) == rows


@needs_promtool
def test_the_alerts_fire_when_they_should_and_not_otherwise() -> None:
    run("check", "config", "prometheus.yml")
    run("test", "rules", "alerts_test.yml")


@needs_promtool
def test_prometheus_can_read_the_expressions_of_the_dashboard_and_the_scaler(tmp_path: Path) -> None:
    rules = [{"record": f"test:{number}", "expr": text} for number, (_, text) in enumerate(EXPRESSIONS)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "test", "rules": rules}]}))
    run("check", "rules", "rules.yml", folder=tmp_path)


@needs_promtool
@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ({"facesieve_up": 1, 'facesieve_images_pending{model="face-efficientnet"}': 7,
          'facesieve_images_pending{model="face-efficientnet.faces"}': 2,
          'facesieve_images_pending{model="another"}': 100}, [9]),
        ({"facesieve_up": 1, 'facesieve_images_pending{model="face-efficientnet"}': 0}, [0]),
        ({"facesieve_up": 1}, [0]),
        ({"facesieve_up": 0}, []),
        ({}, []),
    ],
    ids=["a backlog", "nothing to do", "a ledger without models", "the database is away", "the exporter is away"],
)  # fmt: skip
def test_the_scaler_is_told_the_backlog_or_nothing(series: dict[str, int], expected: list[int], tmp_path: Path) -> None:
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": f"{value}x5"} for name, value in series.items()],
        "promql_expr_test": [
            {"expr": QUERY, "eval_time": "3m", "exp_samples": [{"labels": "{}", "value": n} for n in expected]}
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"tests": [test]}))
    run("test", "rules", "test.yml", folder=tmp_path)
