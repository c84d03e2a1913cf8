"""The configuration: its defaults, and the refusal of what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lockstep_operator.declared import DeletionPolicy
from lockstep_operator.settings import InvalidConfiguration, read_settings, settings_from

BROKER: dict[str, Any] = {"namespace": "lockstep", "spec": {"adminEndpoint": "broker:5672"}}


def test_what_is_not_given_has_its_default() -> None:
    settings = settings_from({"broker": BROKER})
    assert settings.broker.name == "default"
    assert settings.broker.address == "broker:5672"
    assert settings.broker.default_policy is DeletionPolicy.DELETE_IF_EMPTY
    assert not settings.broker.is_flat
    assert (settings.lease.name, settings.lease.namespace) == ("lockstep-operator", "lockstep")
    assert settings.lease.renew_s * 2 < settings.lease.duration_s
    assert settings.watch_namespaces == ()
    assert not settings.bulk_recreate


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "broker"),
        ({"broker": {"namespace": "lockstep", "spec": {}}}, "adminEndpoint"),
        ({"broker": {"spec": BROKER["spec"]}}, "broker.namespace"),
        ({"broker": BROKER, "worker": 3}, "worker"),
        ({"broker": BROKER, "workers": 0}, "workers"),
        ({"broker": BROKER, "workers": True}, "workers"),
        ({"broker": BROKER, "countsRefreshSeconds": 4}, "countsRefreshSeconds"),
        ({"broker": BROKER, "bulkRecreate": "never"}, "bulkRecreate"),
        ({"broker": BROKER, "watchNamespaces": "shop"}, "watchNamespaces"),
        ({"broker": BROKER, "watchNamespaces": ["Shop"]}, "watchNamespaces"),
        ({"broker": BROKER, "lease": {"name": "a b"}}, "lease.name"),
        (
            {"broker": {**BROKER, "spec": {**BROKER["spec"], "defaultDeletionPolicy": "Keep"}}},
            "defaultDeletionPolicy",
        ),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidConfiguration, match=named):
        settings_from(given)


def test_a_file_that_is_not_there_or_no_yaml_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        read_settings(tmp_path / "none.yaml")
    torn = tmp_path / "torn.yaml"
    torn.write_text("broker: [")
    with pytest.raises(InvalidConfiguration, match="no YAML"):
        read_settings(torn)
