"""Definitions that are older than the operator: it says so, once, and works with what there is."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from lockstep_operator.definitions import built_definitions, missing
from tests.kube.client import BROKER, CLUSTER_ROLE, KubeClient, Refused
from tests.kube.definitions import definitions
from tests.operator.running import ACCOUNT, Running, Site, condition, until

Body = dict[str, Any]
QUEUES, BROKERS = "queues.lockstep.dev", "brokers.lockstep.dev"


def by_name() -> dict[str, Body]:
    return {one["metadata"]["name"]: copy.deepcopy(one) for one in definitions()}


def schema(definition: Body, part: str) -> Body:
    (version,) = definition["spec"]["versions"]
    found: Body = version["schema"]["openAPIV3Schema"]["properties"][part]["properties"]
    return found


# --- the comparison ----------------------------------------------------------------------------------


def lose_a_setting(one: Body) -> None:
    del schema(one, "spec")["userMetadata"]


def lose_a_part_of_the_status(one: Body) -> None:
    del schema(one, "status")["countDetails"]["properties"]["transferMessageCount"]


def lose_a_choice(one: Body) -> None:
    schema(one, "spec")["adoptionPolicy"]["enum"].remove("Force")


def lose_what_a_condition_says(one: Body) -> None:
    del schema(one, "status")["conditions"]["items"]["properties"]["observedGeneration"]


def serve_another_version(one: Body) -> None:
    one["spec"]["versions"][0]["name"] = "v1alpha0"


def stop_serving(one: Body) -> None:
    one["spec"]["versions"][0]["served"] = False


def lose_the_subresource(one: Body) -> None:
    del one["spec"]["versions"][0]["subresources"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lose_a_setting, "spec.userMetadata"),
        (lose_a_part_of_the_status, "status.countDetails.transferMessageCount"),
        (lose_a_choice, "spec.adoptionPolicy: Force"),
        (lose_what_a_condition_says, "status.conditions.observedGeneration"),
        (serve_another_version, "version v1alpha1"),
        (stop_serving, "version v1alpha1"),
        (lose_the_subresource, "subresource status"),
    ],
)
def test_what_an_older_definition_lacks_is_named(change: Callable[[Body], None], told: str) -> None:
    older = by_name()[QUEUES]
    change(older)

    assert missing(by_name()[QUEUES], older) == (told,)


def test_a_definition_that_is_the_same_or_newer_lacks_nothing() -> None:
    for built in built_definitions():
        newer: Any = copy.deepcopy(built)
        schema(newer, "spec")["later"] = {"type": "string"}
        newer["spec"]["versions"].append({"name": "v1", "served": True, "schema": {}})

        assert missing(built, copy.deepcopy(built)) == ()
        assert missing(built, newer) == ()


def test_fields_that_are_all_taken_are_not_missing() -> None:
    older = by_name()[QUEUES]
    details = schema(older, "status")["countDetails"]
    del details["properties"]
    details["x-kubernetes-preserve-unknown-fields"] = True

    assert missing(by_name()[QUEUES], older) == ()


# --- on a real API server ----------------------------------------------------------------------------


@pytest.fixture
async def older(kube: KubeClient, kube_namespace: str) -> AsyncIterator[KubeClient]:
    """Definitions as an earlier release may have had them; afterwards they are as they were."""
    found = by_name()
    lose_a_setting(found[QUEUES])
    for name in ("version", "managedEntities"):
        del schema(found[BROKERS], "status")[name]
    try:
        await serve(kube, kube_namespace, found.values(), has_setting=False)
        yield kube
    finally:
        await serve(kube, kube_namespace, definitions(), has_setting=True)


async def serve(
    kube: KubeClient, namespace: str, found: Iterable[Body], *, has_setting: bool
) -> None:
    """Change the definitions, and return when Kubernetes serves them."""
    asked = {
        "apiVersion": "lockstep.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {"name": "asked", "namespace": namespace},
        "spec": {"userMetadata": "of ann"},
    }

    async def is_served() -> bool:
        try:
            made = await kube.create(asked, dry_run=True)
        except Refused as error:
            if error.code == 429:  # what serves the kind is being made anew
                return False
            raise
        return ("userMetadata" in made["spec"]) == has_setting

    for one in found:
        await kube.apply(one)
    await until(is_served, "the definitions are served")


async def told(site: Site, status: str) -> Body:
    """Wait until the Broker object says whether it is degraded, and return that condition."""

    async def look() -> Body | None:
        site.check()
        try:
            body = await site.kube.get(BROKER, "default", site.namespace)
        except Refused as error:
            if error.code == 404:
                return None
            raise
        found = condition(body, "Degraded")
        return found if found and found["status"] == status else None

    found: Body = await until(look, f"Degraded={status}")
    return found


async def status_writes(running: Running) -> float:
    return await running.metric("lockstep_operator_kube_requests_total", target="status")


async def test_older_definitions_are_told_on_the_broker_and_queues_are_kept(
    site: Site, older: KubeClient
) -> None:
    running = await site.start()

    found = await told(site, "True")
    assert found["reason"] == "CRDOutdated"
    assert "Queue lacks spec.userMetadata" in found["message"]
    assert "Broker lacks status.version, status.managedEntities" in found["message"]
    event = await site.event("CRDOutdated")
    assert (event["type"], event["involvedObject"]["kind"]) == ("Warning", "Broker")
    for kind, value in (("Queue", 1), ("Broker", 1), ("DeadLetterResubmission", 0)):
        metric = await running.metric("lockstep_operator_definitions_outdated", kind=kind)
        assert metric == value, kind

    await site.declare("orders", requiresSession=True, maxDeliveryCount=7)
    await site.ready("orders")
    async with site.admin() as admin:
        assert (await admin.get_queue("orders")).max_delivery_count == 7

    # What the definition of the Broker does not take is not written again and again.
    await running.operator.broker_object.tell()
    before = await status_writes(running)
    for _ in range(3):
        await running.operator.broker_object.tell()
    assert await status_writes(running) == before

    await serve(older, site.namespace, definitions(), has_setting=True)
    await running.operator.definitions.check()
    await running.operator.broker_object.tell()
    assert (await told(site, "False"))["reason"] == "AsExpected"
    assert await running.metric("lockstep_operator_definitions_outdated") == 0


async def test_definitions_of_the_same_release_cause_no_write_and_no_word(site: Site) -> None:
    running = await site.start()
    await told(site, "False")
    await running.operator.definitions.check()
    await running.operator.broker_object.tell()
    before = await status_writes(running)

    await running.operator.definitions.check()
    await running.operator.broker_object.tell()

    assert await status_writes(running) == before
    assert running.operator.definitions.text == ""
    assert await site.events("CRDOutdated") == []
    asked = await running.metric("lockstep_operator_kube_requests_total", target="definition")
    refused = await running.metric(
        "lockstep_operator_kube_requests_total", target="definition", code="403"
    )
    assert asked >= 3
    assert refused == 0


async def test_an_operator_that_may_not_read_definitions_works_all_the_same(site: Site) -> None:
    (role,) = [
        one
        for one in await site.kube.list_all(CLUSTER_ROLE)
        if one["metadata"]["name"] == f"{site.namespace}-{ACCOUNT}"
    ]
    rules = [one for one in role["rules"] if "apiextensions.k8s.io" not in one["apiGroups"]]
    await site.kube.patch(CLUSTER_ROLE, role["metadata"]["name"], "", {"rules": rules})

    running = await site.start()
    await site.declare("orders")
    await site.ready("orders")

    await running.operator.definitions.check()
    refused = await running.metric(
        "lockstep_operator_kube_requests_total", target="definition", code="403"
    )
    assert refused >= 3
    assert (await told(site, "False"))["reason"] == "AsExpected"
