"""What a real API server takes for a Broker and what it refuses, with which words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kube.client import BROKER, KubeClient
from tests.kube.objects import an_object, broker, changed, refusal, refused_change

DEFAULTS = {"namespaceMapping": "Kubernetes"}
TAKEN: list[dict[str, Any]] = [
    {},
    {"endpoint": "lockstep.lockstep.svc.cluster.local:7700"},
    {"endpoint": "[fd00::1]:7700", "adminEndpoint": "10.0.0.1:7701"},
    {"allowedNamespaces": {}},
    {"allowedNamespaces": {"matchLabels": {"team": "shop"}}},
    {"allowedNamespaces": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}},
    {
        "allowedNamespaces": {
            "matchExpressions": [{"key": "team", "operator": "In", "values": ["shop", "bank"]}]
        }
    },
    {"defaultDeletionPolicy": "Retain"},
    {"namespaceMapping": "Flat"},
    {"quota": {"maxEntities": 1000, "maxEntitiesPerNamespace": 1}},
]


@pytest.mark.parametrize("spec", TAKEN, ids=str)
async def test_it_takes(kube: KubeClient, kube_namespace: str, spec: dict[str, Any]) -> None:
    body = broker(kube_namespace, **spec)

    made = await kube.create(body, dry_run=True)

    assert made["spec"] == {**DEFAULTS, **body["spec"]}


def _labels(operator: str, **others: Any) -> dict[str, Any]:
    one = {"key": "team", "operator": operator, **others}
    return {"allowedNamespaces": {"matchExpressions": [one]}}


VALUES = "In and NotIn need values, Exists and DoesNotExist have none"
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"endpoint": "lockstep"}, "spec.endpoint"),
    ({"endpoint": "http://lockstep:7700"}, "spec.endpoint"),
    ({"endpoint": ":7700"}, "spec.endpoint"),
    ({"endpoint": "a" * 260 + ":1"}, "spec.endpoint"),
    ({"adminEndpoint": "lockstep:"}, "spec.adminEndpoint"),
    (_labels("Like"), "operator"),
    (_labels("In"), VALUES),
    (_labels("NotIn", values=[]), VALUES),
    (_labels("Exists", values=["shop"]), VALUES),
    ({"defaultDeletionPolicy": "Orphan"}, "spec.defaultDeletionPolicy"),
    ({"namespaceMapping": "flat"}, "spec.namespaceMapping"),
    ({"quota": {"maxEntities": 0}}, "spec.quota.maxEntities"),
    ({"quota": {"maxEntitiesPerNamespace": 0}}, "spec.quota.maxEntitiesPerNamespace"),
]


@pytest.mark.parametrize(("spec", "why"), REFUSED, ids=str)
async def test_it_refuses(
    kube: KubeClient, kube_namespace: str, spec: dict[str, Any], why: str
) -> None:
    assert why in await refusal(kube, broker(kube_namespace, **spec))


@pytest.mark.parametrize(("spec", "why"), [(None, "spec: Required"), ({}, "spec.endpoint: Req")])
async def test_it_says_where_it_is(
    kube: KubeClient, kube_namespace: str, spec: dict[str, Any] | None, why: str
) -> None:
    assert why in await refusal(kube, an_object(BROKER, kube_namespace, spec=spec))


@pytest.mark.parametrize(
    ("before", "after"), [({}, "Flat"), ({"namespaceMapping": "Flat"}, None)], ids=str
)
async def test_where_queues_live_cannot_be_changed(
    kube: KubeClient, kube_namespace: str, before: dict[str, Any], after: str | None
) -> None:
    made = await kube.create(broker(kube_namespace, **before))

    why = await refused_change(kube, BROKER, made, {"namespaceMapping": after})

    assert "namespaceMapping is fixed when a Broker is created" in why


async def test_everything_else_can_be_changed(kube: KubeClient, kube_namespace: str) -> None:
    made = await kube.create(broker(kube_namespace))
    change = {
        "endpoint": "elsewhere:7700",
        "adminEndpoint": "elsewhere:7701",
        "allowedNamespaces": {"matchLabels": {"team": "shop"}},
        "defaultDeletionPolicy": "Delete",
        "quota": {"maxEntities": 5},
    }

    assert await changed(kube, BROKER, made, change) == {**made["spec"], **change}


async def test_an_administrator_keeps_what_the_operator_does_not_say(
    kube: KubeClient, kube_namespace: str
) -> None:
    await kube.apply(broker(kube_namespace), manager="lockstep-operator")
    quota = an_object(BROKER, kube_namespace, "default", {"quota": {"maxEntities": 5}})
    await kube.apply(quota, manager="administrator", force=False)

    made = await kube.apply(
        broker(kube_namespace, endpoint="elsewhere:7700"), manager="lockstep-operator"
    )

    assert made["spec"] == {**DEFAULTS, "endpoint": "elsewhere:7700", "quota": {"maxEntities": 5}}


async def test_columns_show_what_a_person_asks_first(kube: KubeClient, kube_namespace: str) -> None:
    await kube.create(broker(kube_namespace, defaultDeletionPolicy="Retain"))
    condition = {
        "type": "Available",
        "status": "False",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "reason": "BrokerUnavailable",
        "message": "It does not answer.",
    }
    status = {
        "observedGeneration": 1,
        "version": "0.1.0",
        "nodesReady": 3,
        "partitionsOwned": 15,
        "partitionsTotal": 16,
        "entities": 40,
        "managedEntities": 38,
        "conditions": [condition],
    }
    told = await kube.patch(
        BROKER, "default", kube_namespace, {"status": status}, subresource="status"
    )

    columns, [row] = await kube.columns(BROKER, kube_namespace)

    assert told["status"] == status
    narrow = ["Name", "Available", "Reason", "Version", "Entities", "Age"]
    assert [name for name, priority in columns.items() if priority == 0] == narrow
    assert {**row, "Age": ""} == {
        "Name": "default",
        "Available": "False",
        "Reason": "BrokerUnavailable",
        "Version": "0.1.0",
        "Entities": 40,
        "Age": "",
        "Endpoint": "lockstep:7700",
        "Nodes": 3,
        "Partitions": 15,
        "Policy": "Retain",
        "Message": "It does not answer.",
    }
