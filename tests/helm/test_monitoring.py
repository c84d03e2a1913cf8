"""Rules, dashboards and scrapes: the chart wraps what is generated, and changes nothing in it."""

from __future__ import annotations

import json

import yaml

from tests.helm.chart import CHART, EVERYTHING, render

RULES = CHART / "files" / "rules.yaml"
DASHBOARDS = CHART / "files" / "dashboards"


def test_dashboards_come_as_they_were_generated() -> None:
    maps = {
        name: one
        for name, one in render(EVERYTHING).of("ConfigMap").items()
        if "-dashboard-" in name
    }
    files = {one.name: one for one in DASHBOARDS.glob("*.json")}

    assert len(maps) == len(files)
    for one in maps.values():
        ((name, text),) = one["data"].items()
        assert json.loads(text) == json.loads(files[name].read_text())
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_rules_come_with_their_thresholds_and_the_labels_that_prometheus_looks_for() -> None:
    found = render(EVERYTHING).of("PrometheusRule")

    assert set(found) == ({"lockstep"} if RULES.exists() else set())
    for one in found.values():
        assert one["metadata"]["labels"]["release"] == "prometheus"
        assert one["spec"]["groups"]
        assert "{{ .Values" not in yaml.safe_dump(one)


def test_totals_are_scraped_of_every_process_and_queues_of_their_owners_alone() -> None:
    monitors = render(EVERYTHING).of("PodMonitor")

    (totals,) = monitors["lockstep"]["spec"]["podMetricsEndpoints"]
    (entities,) = monitors["lockstep-entities"]["spec"]["podMetricsEndpoints"]
    assert (totals["path"], entities["path"]) == ("/metrics", "/metrics/entities")
    selector = monitors["lockstep-entities"]["spec"]["selector"]["matchLabels"]
    assert selector["app.kubernetes.io/component"] == "owner"
    (some,) = monitors["lockstep"]["spec"]["selector"]["matchExpressions"]
    assert some["values"] == ["frontend", "owner", "operator"]
