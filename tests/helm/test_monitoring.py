"""Rules, dashboards and scrapes: the chart wraps what is generated, and changes nothing in it."""

from __future__ import annotations

import json

import yaml

from tests.helm.chart import CHART, EVERYTHING, merged, render

RULES = CHART / "files" / "rules.yaml"
DASHBOARDS = CHART / "files" / "dashboards"


def test_dashboards_come_as_they_were_generated() -> None:
    maps = {
        name: one
        for name, one in render(EVERYTHING).of("ConfigMap").items()
        if "-dashboard-" in name
    }
    files = {one.name: one for one in DASHBOARDS.glob("*.json")}

    assert len(maps) == len(files) > 0
    for one in maps.values():
        ((name, text),) = one["data"].items()
        assert json.loads(text) == json.loads(files[name].read_text())
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_rules_come_with_their_thresholds_and_the_labels_that_prometheus_looks_for() -> None:
    found = render(EVERYTHING).of("PrometheusRule")

    (one,) = found.values()
    assert one["metadata"]["labels"]["release"] == "prometheus"
    assert len(one["spec"]["groups"]) == RULES.read_text().count("\n- name: ")
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


def test_an_alert_that_is_named_as_disabled_is_left_out() -> None:
    def alerts(disabled: list[str]) -> set[str]:
        values = merged(EVERYTHING, {"monitoring": {"alerts": {"disabled": disabled}}})
        groups = render(values).of("PrometheusRule")["lockstep"]["spec"]["groups"]
        return {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}

    everything = alerts([])
    assert alerts(["LockstepFencedWrites"]) == everything - {"LockstepFencedWrites"}
    assert "LockstepFencedWrites" in everything
