"""Values: the schema knows each one and refuses others, and what cannot work is refused with what to do."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lockstep.runtime.config import load_config, render_config
from tests.helm.chart import CHART, CRDS, KIND, PRODUCTION, Refused, Values, merged, render

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
_SELECTORS = ("allowedNamespaces", "clientSelector", "monitoringNamespaceSelector")
RULES = CHART / "files" / "rules.yaml"
ALERTS = CHART / "files" / "alerts.yaml"


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with what it refers to."""
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    found: dict[str, Any] = SCHEMA["$defs"][name] if name else schema
    return found


def objects(
    schema: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield each object whose keys the schema names, with its path."""
    found = resolved(schema)
    if "properties" not in found:
        return
    yield path, found
    for key, below in found["properties"].items():
        yield from objects(below, (*path, key))


OBJECTS = dict(objects(SCHEMA))


def at(path: tuple[str, ...], values: Any) -> Any:
    for key in path:
        values = values[key]
    return values


@pytest.mark.parametrize("path", OBJECTS, ids=".".join)
def test_a_key_that_nobody_knows_is_refused(path: tuple[str, ...]) -> None:
    values: dict[str, Any] = {"typo": 1}
    for key in reversed(path):
        values = {key: values}

    with pytest.raises(Refused, match="typo"):
        render(merged(KIND, values))


@pytest.mark.parametrize("path", OBJECTS, ids=".".join)
def test_every_default_is_in_the_schema_and_every_key_of_the_schema_has_a_default(
    path: tuple[str, ...],
) -> None:
    if path and path[-1] in ("pod", "quota", "resources", *_SELECTORS):
        default = {} if "pod" in path[:-1] else at(path, DEFAULTS)
        assert default == {}  # nothing is overlaid, nothing limited, nothing selected
        return
    if path == ("image",):
        assert set(at(path, DEFAULTS)) == set(OBJECTS[path]["properties"])
        return
    assert set(at(path, DEFAULTS)) == set(OBJECTS[path]["properties"]) - {"global"}


def test_every_value_has_a_description() -> None:
    for path, schema in OBJECTS.items():
        for key, below in schema["properties"].items():
            assert below.get("description", "").endswith("."), (*path, key)


@pytest.mark.parametrize(
    "values",
    [
        {"profile": "prodution"},
        {"owner": {"replicas": "three"}},
        {"owner": {"replicas": -1}},
        {"owner": {"partitions": 0}},
        {"frontend": {"service": {"port": 70_000}}},
        {"image": {"digest": "sha256:abc"}},
        {"etcd": {"bundled": {"replicas": 2}}},
        {"etcd": {"external": {"endpoints": ["http://etcd:2379"]}}},
        {"operator": {"defaultDeletionPolicy": "Keep"}},
        {"operator": {"watchNamespaces": "orders"}},
        {"clusterName": "Not A Name"},
        {"tls": {"mode": "generate"}},
        {"settings": {"Not A Setting": 1}},
        {"settings": {"limits.queues_maxx": 1}},
        {"broker": {"allowedNamespaces": {"matchLabel": {"a": "b"}}}},
        {"broker": {"allowedNamespaces": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}},
        {"networkPolicy": {"apiServerCIDRs": ["notacidr"]}},
        {"networkPolicy": {"clientSelector": {"app": "shop"}}},
        {"monitoring": {"alerts": {"disabled": ["Nope"]}}},
        {"monitoring": {"alerts": {"errorBudget": 7}}},
        {"frontend": {"pod": {"resources": {"limits": {"memory": "abc"}}}}},
        {"etcd": {"bundled": {"resources": {"limit": {}}}}},
        {"podDefaults": {"labels": {"a": 1}}},
    ],
    ids=str,
)
def test_a_value_that_makes_no_sense_is_refused_by_the_schema(values: Values) -> None:
    with pytest.raises(Refused, match="schema"):
        render(merged(KIND, values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"etcd": {"mode": "bundled"}}, "name your own etcd in etcd.external.endpoints"),
        ({"postgresql": {"mode": "bundled"}}, "in postgresql.external.existingSecret, or set postgresql.mode=cnpg"),
        ({"etcd": {"external": {"endpoints": []}}}, "etcd.external.endpoints is empty: name the members"),
        ({"postgresql": {"external": {"existingSecret": ""}}}, "postgresql.external.existingSecret is empty"),
        ({"frontend": {"lameDuckSeconds": 21}}, "it must be at least lameDuckSeconds + drainTimeoutSeconds + 10 = 61"),
        ({"owner": {"drainTimeoutSeconds": 51}}, "it must be at least drainTimeoutSeconds + 10 = 61"),
        ({"image": {"tag": "latest"}}, "image.tag is latest: name a release"),
        ({"frontend": {"autoscaling": {"enabled": True, "minReplicas": 20}}}, "minReplicas=20 is more than"),
        ({"settings": {"port": 1}}, "settings.port: this setting has a value of its own"),
        ({"settings": {"cluster.etcd_password": "x"}}, "which refer to Secrets"),
        ({"settings": {"cluster.postgres_dsns": "x"}}, "which refer to Secrets"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)  # fmt: skip
def test_what_cannot_work_is_refused_with_what_to_do(values: Values, message: str) -> None:
    with pytest.raises(Refused, match=re.escape(message)):
        render(merged(PRODUCTION, values))


def test_what_is_just_long_enough_is_accepted() -> None:
    times = {"frontend": {"lameDuckSeconds": 20}, "owner": {"drainTimeoutSeconds": 50}}

    assert render(merged(PRODUCTION, times)).objects


def test_the_schema_knows_the_settings_of_the_server_and_the_alerts() -> None:
    known = SCHEMA["properties"]["settings"]["propertyNames"]["enum"]
    told = tomllib.loads(render_config(load_config(None, {})))
    sections = {name: values for name, values in told.items() if isinstance(values, dict)}
    inside = {f"{name}.{key}" for name, values in sections.items() for key in values}
    assert set(known) == (told.keys() - sections.keys()) | inside
    alerts = SCHEMA["properties"]["monitoring"]["properties"]["alerts"]["properties"]["disabled"]
    names = re.findall(r"^ *- alert: (\w+)$", RULES.read_text(), re.MULTILINE)
    assert alerts["items"]["enum"] == sorted(names)


def test_thresholds_of_alerts_are_those_that_the_rules_were_made_for() -> None:
    made = yaml.safe_load(ALERTS.read_text())

    assert DEFAULTS["monitoring"]["alerts"] == made


@pytest.mark.parametrize("chart", [CHART, CRDS], ids=lambda one: one.name)
def test_the_charts_carry_the_definitions_that_the_operator_was_written_for(chart: Path) -> None:
    sources = chart.parents[1] / "operator" / "lockstep_operator" / "crds"
    copies = chart / "files" / "crds"
    assert {one.name: one.read_text() for one in copies.iterdir()} == {
        one.name: one.read_text() for one in sources.glob("*.yaml")
    }, "run make crds"


def test_the_charts_have_the_version_of_the_package() -> None:
    project = (CHART.parents[1] / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.*)"$', project, re.MULTILINE)
    assert version is not None
    for chart in (CHART, CRDS):
        about = yaml.safe_load((chart / "Chart.yaml").read_text())
        assert (about["version"], about["appVersion"]) == (version[1], version[1])
