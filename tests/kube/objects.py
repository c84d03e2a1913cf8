"""Objects of our kinds as users write them, and what the server says of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kube.client import BROKER, QUEUE, RESUBMISSION, Body, Kind, KubeClient, Refused

Spec = dict[str, Any]


def an_object(kind: Kind, namespace: str, name: str = "orders", spec: Spec | None = None) -> Body:
    """Return an object; without a spec it has none."""
    body: Body = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": namespace},
    }
    return body if spec is None else {**body, "spec": spec}


def queue(namespace: str, name: str = "orders", **spec: Any) -> Body:
    """Return a queue."""
    return an_object(QUEUE, namespace, name, spec)


def broker(namespace: str, name: str = "default", **spec: Any) -> Body:
    """Return a broker."""
    return an_object(BROKER, namespace, name, {"endpoint": "lockstep:7700", **spec})


def resubmission(namespace: str, name: str = "again", **spec: Any) -> Body:
    """Return a resubmission of the dead letters of `orders`."""
    return an_object(
        RESUBMISSION, namespace, name, {"source": {"kind": "Queue", "name": "orders"}, **spec}
    )


async def refusal(kube: KubeClient, body: Body) -> str:
    """Return why the server does not take a new object."""
    with pytest.raises(Refused) as refused:
        await kube.create(body, dry_run=True)
    assert refused.value.reason == "Invalid", refused.value
    return str(refused.value)


async def refused_change(kube: KubeClient, kind: Kind, body: Body, change: Spec) -> str:
    """Return why the server does not take a change of the spec of an object that is there."""
    metadata = body["metadata"]
    with pytest.raises(Refused) as refused:
        await kube.patch(kind, metadata["name"], metadata["namespace"], {"spec": change})
    assert refused.value.reason == "Invalid", refused.value
    return str(refused.value)


async def changed(kube: KubeClient, kind: Kind, body: Body, change: Spec) -> Spec:
    """Change the spec of an object and return what it is then."""
    metadata = body["metadata"]
    answer = await kube.patch(kind, metadata["name"], metadata["namespace"], {"spec": change})
    spec: Spec = answer["spec"]
    return spec
