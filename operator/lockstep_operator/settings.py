"""The operator's configuration: one YAML file, made by the chart.

Here belong its fields, their defaults and the refusal of what is wrong. Never here: what they do. The law: a field
that nobody knows, or a value out of range, stops the start with the field, the value and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lockstep_operator.declared import DeletionPolicy

_PORT_MAX = 65_535
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class InvalidConfiguration(ValueError):
    """The file says what the operator cannot do; its text names the field."""


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """The Broker that this operator keeps.

    Attributes:
        name: Of the Broker object; Queue objects name it as spec.brokerName.
        namespace: Of the Broker object: that of the release.
        spec: What is written into the object; see `crds/brokers.yaml`.
    """

    name: str
    namespace: str
    spec: Mapping[str, Any]

    @property
    def address(self) -> str:
        """Where the broker's administration is called, `host:port`."""
        return str(self.spec["adminEndpoint"])

    @property
    def is_flat(self) -> bool:
        """Whether all objects share the broker namespace `default`; else each Kubernetes namespace has its own."""
        return self.spec.get("namespaceMapping") == "Flat"

    @property
    def default_policy(self) -> DeletionPolicy:
        """What becomes of a queue when its object is deleted, where the object does not say."""
        return DeletionPolicy(
            self.spec.get("defaultDeletionPolicy", DeletionPolicy.DELETE_IF_EMPTY)
        )


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """The Lease that says which operator works.

    Attributes:
        name: Of the Lease object.
        namespace: Of the Lease object.
        duration_s: After so many seconds without a renewal another one takes over.
        renew_s: Seconds between renewals.
    """

    name: str
    namespace: str
    duration_s: int = 15
    renew_s: int = 5


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Everything that the file says.

    Attributes:
        broker: The Broker that is kept.
        lease: Who works, of several operators.
        watch_namespaces: Kubernetes namespaces that are looked at; empty = all.
        workers: Objects that are worked on at the same time, 1 to 64.
        drift_interval_s: Seconds between two comparisons of everything with the broker, 10 to 86400.
        counts_refresh_s: Seconds between two refreshes of the counts in status, at least 5; 0 = never.
        bulk_recreate: Whether queues are created again at once although many are gone from the broker.
        metrics_port: Of `/metrics`; 0 = any.
        health_port: Of `/live` and `/ready`; 0 = any.
    """

    broker: BrokerSettings
    lease: LeaseSettings
    watch_namespaces: tuple[str, ...] = ()
    workers: int = 16
    drift_interval_s: int = 600
    counts_refresh_s: int = 60
    bulk_recreate: bool = False
    metrics_port: int = 9464
    health_port: int = 7702


_FIELDS = frozenset(
    {
        "broker",
        "lease",
        "watchNamespaces",
        "workers",
        "driftIntervalSeconds",
        "countsRefreshSeconds",
        "bulkRecreate",
        "metricsPort",
        "healthPort",
    }
)


def read_settings(path: Path) -> OperatorSettings:
    """Return what a file says.

    Raises:
        InvalidConfiguration: It is not there, is no YAML, or says what cannot be done.
    """
    try:
        given = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InvalidConfiguration(f"{path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise InvalidConfiguration(f"{path} is no YAML: {error}.") from error
    return settings_from(given if given is not None else {})


def settings_from(given: Any) -> OperatorSettings:
    """Return the settings that a document says.

    Raises:
        InvalidConfiguration: It says what cannot be done.
    """
    found = _mapping("the file", given, _FIELDS)
    broker = _broker(_mapping("broker", found.get("broker"), {"name", "namespace", "spec"}))
    lease = _mapping("lease", found.get("lease") or {}, {"name", "namespace"})
    recreate = found.get("bulkRecreate", "guarded")
    if recreate not in ("guarded", "always"):
        raise InvalidConfiguration(f"bulkRecreate is 'guarded' or 'always', not {recreate!r}.")
    counts = _whole(found, "countsRefreshSeconds", 60, 0, 86_400)
    if 0 < counts < 5:
        raise InvalidConfiguration(
            f"countsRefreshSeconds is at least 5, or 0 for never, not {counts}."
        )
    return OperatorSettings(
        broker=broker,
        lease=LeaseSettings(
            _name("lease.name", lease.get("name", "lockstep-operator")),
            _name("lease.namespace", lease.get("namespace", broker.namespace)),
        ),
        watch_namespaces=_names(found.get("watchNamespaces") or []),
        workers=_whole(found, "workers", 16, 1, 64),
        drift_interval_s=_whole(found, "driftIntervalSeconds", 600, 10, 86_400),
        counts_refresh_s=counts,
        bulk_recreate=recreate == "always",
        metrics_port=_whole(found, "metricsPort", 9464, 0, _PORT_MAX),
        health_port=_whole(found, "healthPort", 7702, 0, _PORT_MAX),
    )


def _broker(given: Mapping[str, Any]) -> BrokerSettings:
    spec = given.get("spec")
    if not isinstance(spec, Mapping) or not spec.get("adminEndpoint"):
        raise InvalidConfiguration("broker.spec.adminEndpoint is missing; give host:port.")
    policy = spec.get("defaultDeletionPolicy", DeletionPolicy.DELETE_IF_EMPTY)
    if policy not in set(DeletionPolicy):
        raise InvalidConfiguration(
            f"broker.spec.defaultDeletionPolicy is one of {', '.join(DeletionPolicy)}, not {policy!r}."
        )
    mapping = spec.get("namespaceMapping", "Kubernetes")
    if mapping not in ("Kubernetes", "Flat"):
        raise InvalidConfiguration(
            f"broker.spec.namespaceMapping is 'Kubernetes' or 'Flat', not {mapping!r}."
        )
    return BrokerSettings(
        _name("broker.name", given.get("name", "default")),
        _name("broker.namespace", given.get("namespace")),
        dict(spec),
    )


def _mapping(where: str, given: Any, known: frozenset[str] | set[str]) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise InvalidConfiguration(f"{where} has no fields; it has {', '.join(sorted(known))}.")
    if unknown := sorted(set(given) - known):
        raise InvalidConfiguration(
            f"{where} has a field '{unknown[0]}' that nobody knows; it has {', '.join(sorted(known))}."
        )
    return given


def _whole(given: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidConfiguration(
            f"{name} is a whole number from {least} to {most}, not {value!r}."
        )
    return value


def _name(where: str, value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidConfiguration(
            f"{where} is a name of Kubernetes (a-z, 0-9 and -, at most 63), not {value!r}."
        )
    return value


def _names(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list):
        raise InvalidConfiguration(f"watchNamespaces is a list of names, [] = all, not {given!r}.")
    return tuple(_name("watchNamespaces", one) for one in given)
