"""The custom resource definitions say what the operator reads, and nothing that may never change again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import pytest
import yaml

from lockstep_operator import declared
from lockstep_operator.durations import InvalidDuration, parse_duration

# Defaults of the schema count for objects that are stored already, so none may ever be changed or joined by another.
DEFAULTS = {
    "brokerName": "default",
    "managementPolicy": "Full",
    "adoptionPolicy": "IfUnowned",
    "requiresSession": False,
    "requiresDuplicateDetection": False,
}
POLICIES = {
    "brokerName",
    "entityName",
    "managementPolicy",
    "deletionPolicy",
    "adoptionPolicy",
}


def definition() -> Mapping[str, Any]:
    text = resources.files("lockstep_operator").joinpath("crds", "queues.yaml").read_text()
    found: Mapping[str, Any] = yaml.safe_load(text)
    return found


def spec() -> Mapping[str, Any]:
    (version,) = definition()["spec"]["versions"]
    found: Mapping[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def strings(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, one in schema["properties"].items():
        if one["type"] == "string":
            yield name, one


def test_every_field_of_the_spec_is_read() -> None:
    settings = {*declared._SAME, *declared._DURATIONS, *declared._CHOICES}
    assert set(spec()["properties"]) == settings | POLICIES


def test_every_choice_is_one_that_the_operator_knows() -> None:
    for name, (_, choices) in declared._CHOICES.items():
        assert spec()["properties"][name]["enum"] == list(choices), name
    for name, kind in (
        ("deletionPolicy", declared.DeletionPolicy),
        ("adoptionPolicy", declared.AdoptionPolicy),
    ):
        assert spec()["properties"][name]["enum"] == [one.value for one in kind]


def test_no_default_is_added_or_changed() -> None:
    found = {name: one["default"] for name, one in spec()["properties"].items() if "default" in one}
    assert found == DEFAULTS
    assert spec()["default"] == DEFAULTS


def test_every_text_has_a_largest_length_or_a_list_of_choices() -> None:
    """Without one the API server refuses the rules for their cost."""
    for name, one in strings(spec()):
        assert "enum" in one or "maxLength" in one, name


def test_people_find_queues_by_a_short_name() -> None:
    names = definition()["spec"]["names"]
    assert (names["kind"], names["shortNames"], names["categories"]) == (
        "Queue",
        ["lkq"],
        ["lockstep"],
    )
    assert definition()["metadata"]["name"] == f"{names['plural']}.{declared.GROUP}"
    (version,) = definition()["spec"]["versions"]
    assert version["name"] == declared.VERSION
    assert "status" in version["subresources"]


@pytest.mark.parametrize("name", sorted(declared._DURATIONS))
def test_a_duration_that_the_schema_lets_through_can_be_read(name: str) -> None:
    """All but a bare `P` or `PT`, which a pattern of this kind lets through and another part of the rule refuses."""
    form = spec()["properties"][name]["x-kubernetes-validations"][0]["rule"]
    pattern = form.split("self.matches('", 1)[1].split("')", 1)[0]
    for text in (
        "PT5M",
        "PT30S",
        "PT1M30S",
        "P1D",
        "PT2H",
        "P1DT1H",
        "PT0.5S",
        "PT",
        "P",
        "5m",
        "",
    ):
        if not re.search(pattern, text) or text in ("P", "PT"):
            continue
        try:
            parse_duration(text)
        except InvalidDuration:
            pytest.fail(f"{name}: the schema takes {text!r}")
