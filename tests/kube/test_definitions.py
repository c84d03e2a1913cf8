"""All definitions together: each rule is shown to refuse something, and no default may ever change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kube import test_brokers, test_queues, test_resubmissions
from tests.kube.definitions import definitions

Schema = dict[str, Any]

SHOWN = [
    *(why for _, why in test_queues.REFUSED),
    *(why for _, _, why in test_queues.FIXED),
    *(why for _, why in test_brokers.REFUSED),
    "namespaceMapping is fixed when a Broker is created",
    *(why for _, why in test_resubmissions.REFUSED),
    test_resubmissions.WHY,
]
# Defaults count for objects that are stored already: none of these may ever be changed, or joined by another.
DEFAULTS: dict[str, dict[str, Any]] = {
    "Queue": {"spec": test_queues.DEFAULTS}
    | {f"spec.{name}": value for name, value in test_queues.DEFAULTS.items()},
    "Broker": {"spec.namespaceMapping": "Kubernetes"},
    "DeadLetterResubmission": {
        f"spec.{name}": value
        for name, value in test_resubmissions.DEFAULTS.items()
        if name != "source"
    }
    | {"spec.source.subQueue": "DeadLetter"},
}


def _schema(definition: dict[str, Any]) -> Schema:
    (version,) = definition["spec"]["versions"]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return schema


def _within(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, one in schema.get("properties", {}).items():
        yield from _within(one, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from _within(schema["items"], f"{path}[]")


RULES = [
    (definition["spec"]["names"]["kind"], rule["message"])
    for definition in definitions()
    for _, schema in _within(_schema(definition))
    for rule in schema.get("x-kubernetes-validations", ())
]


@pytest.mark.parametrize(("kind", "message"), RULES)
def test_every_rule_is_shown_to_refuse_something(kind: str, message: str) -> None:
    assert any(why in message for why in SHOWN)


@pytest.mark.parametrize("definition", definitions(), ids=lambda one: one["spec"]["names"]["kind"])
def test_no_default_is_added_or_changed(definition: dict[str, Any]) -> None:
    found = {
        path: schema["default"]
        for path, schema in _within(_schema(definition))
        if "default" in schema
    }

    assert found == DEFAULTS[definition["spec"]["names"]["kind"]]


@pytest.mark.parametrize("definition", definitions(), ids=lambda one: one["spec"]["names"]["kind"])
def test_every_field_of_a_spec_says_what_it_means(definition: dict[str, Any]) -> None:
    """`kubectl explain` and the reference of the chart show nothing else."""
    spec = _schema(definition)["properties"]["spec"]

    assert [name for name, one in spec["properties"].items() if not one.get("description")] == []
