"""What kube-state-metrics is told to read is there: each path leads to a field of the schemas."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from lockstep_operator.conditions import Kind
from tests.helm.chart import CHART, EVERYTHING, KIND, Object, merged, render
from tests.kube.definitions import definitions

NAME = "lockstep-kube-state-metrics"
# Every object has these; the schemas do not say so.
METADATA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "namespace": {"type": "string"}},
}
# Conditions that objects of a kind can have; of a Broker they stand in its schema's words.
CONDITIONS: Mapping[str, set[str]] = {
    "Queue": {one.value for one in Kind},
    "Broker": {"Available", "Progressing", "Degraded"},
}
LABELS = {"namespace", "name", "broker", "reason", "policy", "phase"}


def configuration() -> Object:
    values = merged(KIND, {"monitoring": {"kubeStateMetrics": {"enabled": True}}})
    found: Object = yaml.safe_load(render(values).of("ConfigMap")[NAME]["data"]["config.yaml"])
    return found


def schemas() -> Mapping[tuple[str, str, str], Object]:
    return {
        (one["spec"]["group"], version["name"], one["spec"]["names"]["kind"]): version["schema"][
            "openAPIV3Schema"
        ]
        for one in definitions()
        for version in one["spec"]["versions"]
    }


def field(schema: Object, path: Sequence[str], kind: str) -> Object:
    """Return the field at the end of a path; KeyError = there is none."""
    found: Object = {**schema, "properties": {**schema["properties"], "metadata": METADATA}}
    for step in path:
        if found.get("type") == "array":
            chosen = re.fullmatch(r"\[type=(\w+)\]", step)
            assert chosen is not None, path
            assert chosen[1] in CONDITIONS[kind], path
            found = found["items"]
        else:
            found = found["properties"][step]
    return found


def resources() -> Iterator[tuple[Object, Object, str]]:
    """Yield each resource of the configuration with its schema and its kind."""
    for one in configuration()["spec"]["resources"]:
        group, version, kind = (
            one["groupVersionKind"][name] for name in ("group", "version", "kind")
        )
        yield one, schemas()[group, version, kind], kind


def test_it_comes_only_when_it_is_asked_for_and_where_kube_state_metrics_runs() -> None:
    assert NAME not in render(KIND).of("ConfigMap")

    one = render(EVERYTHING).of("ConfigMap")[NAME]

    assert one["metadata"]["namespace"] == "monitoring"
    assert one["data"]["config.yaml"].strip() == (
        (CHART / "files" / "kube-state-metrics.yaml").read_text().strip()
    )


def test_every_kind_of_ours_is_in_it_once() -> None:
    kinds = [kind for _, _, kind in resources()]

    assert sorted(kinds) == sorted(kind for _, _, kind in schemas())


def test_every_path_leads_to_a_field() -> None:
    count = 0
    for one, schema, kind in resources():
        for part in (one, *one["metrics"]):
            for label, path in part.get("labelsFromPath", {}).items():
                assert label in LABELS
                assert field(schema, path, kind)["type"] == "string", path
                count += 1
        for metric in one["metrics"]:
            (values,) = (
                metric["each"][name] for name in ("gauge", "stateSet") if name in metric["each"]
            )
            assert field(schema, values["path"], kind)["type"] == "string", values["path"]
            count += 1
    assert count >= 15


def test_a_state_of_a_closed_list_has_all_its_values() -> None:
    lists = 0
    for one, schema, kind in resources():
        for metric in one["metrics"]:
            states: Any = metric["each"].get("stateSet")
            if states is None:
                assert set(metric["each"]["gauge"]) == {"path", "nilIsZero"}
                continue
            path = states["path"]
            # What counts of a policy is told in the status, whose schema leaves the list to the spec.
            where = ["spec", path[-1]] if path[:2] == ["status", "effective"] else path
            assert states["list"] == field(schema, where, kind)["enum"]
            assert states["labelName"] in LABELS
            lists += 1
    assert lists == 3


def test_names_of_metrics_are_told_in_the_documentation() -> None:
    page = (CHART.parents[1] / "docs" / "metrics.md").read_text()

    for one, _, _ in resources():
        for metric in one["metrics"]:
            assert f"`{one['metricNamePrefix']}_{metric['name']}`" in page
