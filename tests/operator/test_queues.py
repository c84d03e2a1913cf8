"""Queue objects on a real API server, kept by an operator in a real broker."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import lockstep.aio as client
from lockstep.core.errors import EntityNotFound
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.ids import SystemIds
from lockstep_operator.broker import Broker, Keeper
from tests.kube.client import BROKER, EVENT, NAMESPACE, QUEUE
from tests.operator.running import Site, condition, until

FINALIZER = "lockstep.dev/entity"


async def has_queue(site: Site, name: str) -> bool:
    async with site.admin() as admin:
        try:
            await admin.get_queue(name)
        except EntityNotFound:
            return False
    return True


async def test_a_declared_queue_is_made_and_told(site: Site) -> None:
    await site.start()

    await site.declare("orders", requiresSession=True, lockDuration="PT30S", maxDeliveryCount=3)
    body = await site.ready("orders")

    async with site.admin() as admin:
        queue = await admin.get_queue("orders")
    assert queue.requires_session
    assert queue.lock_duration.total_seconds() == 30
    assert queue.max_delivery_count == 3
    status = body["status"]
    assert status["entityId"] == queue.uid
    assert status["entityPath"] == f"{site.namespace}/orders"
    assert status["effective"]["lockDuration"] == "PT30S"
    assert status["effective"]["placement"] == "Spread"
    assert status["effective"]["deletionPolicy"] == "DeleteIfEmpty"
    assert status["countDetails"]["activeMessageCount"] == 0
    assert body["metadata"]["finalizers"] == [FINALIZER]
    assert condition(body, "Reconciling") is None
    assert condition(body, "Stalled") is None
    created = await site.event("Created")
    assert created["involvedObject"]["uid"] == body["metadata"]["uid"]


async def test_a_new_object_costs_two_writes(site: Site) -> None:
    running = await site.start()
    before = await running.metric("lockstep_operator_kube_requests_total", verb="patch")

    await site.declare("orders")
    await site.ready("orders")
    # A second object, so that looks which the first one's own writes caused are over.
    await site.declare("others")
    await site.ready("others")

    after = await running.metric("lockstep_operator_kube_requests_total", verb="patch")
    told_of_the_broker = 2
    assert after - before <= 4 + told_of_the_broker


async def test_a_change_is_applied_and_a_dropped_setting_has_its_default_again(site: Site) -> None:
    await site.start()
    await site.declare("orders", maxDeliveryCount=3, defaultMessageTimeToLive="PT1H")
    await site.ready("orders")

    await site.declare("orders", maxDeliveryCount=5)
    body = await site.ready("orders")

    async with site.admin() as admin:
        queue = await admin.get_queue("orders")
    assert queue.max_delivery_count == 5
    assert queue.default_message_time_to_live is None
    assert body["status"]["effective"]["maxDeliveryCount"] == 5
    assert "defaultMessageTimeToLive" not in body["status"]["effective"]


async def test_an_empty_queue_goes_with_its_object_and_one_with_a_message_stays(site: Site) -> None:
    await site.start()
    for name in ("empty", "full"):
        await site.declare(name)
        await site.ready(name)
    async with site.client() as talking, talking.get_queue_sender("full") as sender:
        await sender.send_messages(client.Message(b"1"))

    await site.delete("empty")
    await site.delete("full")

    await site.gone("empty")
    assert not await has_queue(site, "empty")
    body = await site.told("full", "DeletionBlocked", "True", "NotEmpty")
    assert "it holds 1 message." in (condition(body, "DeletionBlocked") or {})["message"]
    assert await has_queue(site, "full")
    await site.event("DeletionBlocked")

    await site.edit("full", {"spec": {"deletionPolicy": "Delete"}})
    await site.gone("full")
    assert not await has_queue(site, "full")


async def test_a_queue_that_the_operator_did_not_see_yet_goes_with_its_object(site: Site) -> None:
    running = await site.start()
    await site.declare("orders")
    await site.ready("orders")

    # As a reading of the broker would leave it that began before the queue was made.
    running.operator.mirror.drop(site.namespace, "orders")
    await site.delete("orders")

    await site.gone("orders")
    assert not await has_queue(site, "orders")


async def test_retained_queues_have_no_finalizer_and_stay(site: Site) -> None:
    await site.start()
    await site.declare("kept", deletionPolicy="Retain")
    body = await site.ready("kept")
    assert "finalizers" not in body["metadata"]

    await site.delete("kept")

    await site.gone("kept")
    assert await has_queue(site, "kept")


async def test_the_way_out_of_a_blocked_deletion(site: Site) -> None:
    await site.start()
    await site.declare("full")
    await site.ready("full")
    async with site.client() as talking, talking.get_queue_sender("full") as sender:
        await sender.send_messages(client.Message(b"1"))
    await site.delete("full")
    await site.told("full", "DeletionBlocked", "True")

    await site.edit("full", {"metadata": {"annotations": {"lockstep.dev/force-finalize": "true"}}})

    await site.gone("full")
    assert await has_queue(site, "full")


async def test_objects_of_a_namespace_that_is_deleted_do_not_hold_it(site: Site) -> None:
    running = await site.start()
    await site.declare("full")
    await site.ready("full")
    async with site.client() as talking, talking.get_queue_sender("full") as sender:
        await sender.send_messages(client.Message(b"1"))

    # Without controllers the namespace stays Terminating, and its objects are deleted by nobody else.
    await site.kube.delete(NAMESPACE, site.namespace)
    await site.delete("full")

    await site.gone("full")
    assert await has_queue(site, "full")
    assert await running.metric("lockstep_operator_orphans_total") == 1


async def test_what_stays_of_a_deleted_namespace_is_told_of_the_broker(site: Site) -> None:
    """The namespace takes its events with it, and lets none be made any more."""
    other = await site.kube.make_namespace(f"{site.namespace}-going")
    elsewhere = replace(site, namespace=other)
    await site.start(
        spec={"allowedNamespaces": {"matchLabels": {"kubernetes.io/metadata.name": other}}}
    )
    await elsewhere.declare("orders")
    await elsewhere.ready("orders")
    async with elsewhere.client() as talking, talking.get_queue_sender("orders") as sender:
        await sender.send_messages(client.Message(b"1"))

    await site.kube.delete(NAMESPACE, other)
    await elsewhere.delete("orders")
    await elsewhere.gone("orders")

    told = await site.event("Orphaned")
    assert (told["type"], told["involvedObject"]["kind"]) == ("Warning", "Broker")
    assert f"The namespace {other} is being deleted." in told["message"]
    assert "orders" in told["message"]


async def test_everything_that_a_queue_does_is_told_as_effective(site: Site) -> None:
    await site.start()
    spec = {
        "requiresSession": True,
        "requiresDuplicateDetection": True,
        "duplicateDetectionHistoryTimeWindow": "PT20M",
        "entityStatus": "SendDisabled",
        "sessionLockExtension": "Off",
        "acceptNext": "Disabled",
        "sessionExpiry": "PerMessage",
        "releaseOnDisconnect": True,
        "recallOnAbandon": True,
        "sessionStateIdleTTL": "P2D",
        "userMetadata": "of the shop",
    }
    await site.declare("orders", **spec)
    effective = (await site.ready("orders"))["status"]["effective"]

    assert effective | spec == effective
    assert effective["lockDuration"] == "PT1M"
    assert effective["deletionPolicy"] == "DeleteIfEmpty"
    assert effective["placement"] == "Spread"
    # For ever is told by nothing.
    assert "defaultMessageTimeToLive" not in effective


async def test_an_existing_queue_is_adopted_and_one_of_another_kind_is_refused(site: Site) -> None:
    async with site.admin() as admin:
        adopted = await admin.create_queue("adopted", max_delivery_count=7)
        await admin.create_queue("other", requires_session=True)
    await site.start()

    await site.declare("adopted")
    await site.declare("other")

    body = await site.ready("adopted")
    assert body["status"]["entityId"] == adopted.uid
    assert body["status"]["effective"]["maxDeliveryCount"] == 10
    await site.event("Adopted")
    stalled = await site.told("other", "Stalled", "True", "ImmutableMismatch")
    assert "requiresSession" in (condition(stalled, "Ready") or {})["message"]
    await site.event("ImmutableMismatch")


async def test_of_two_objects_the_older_one_has_the_queue_until_it_goes(site: Site) -> None:
    await site.start()
    await site.declare("first", entityName="shared", deletionPolicy="Retain")
    await site.ready("first")

    await site.declare("second", entityName="Shared")
    body = await site.told("second", "Stalled", "True", "NameConflict")
    assert f"{site.namespace}/first" in (condition(body, "Ready") or {})["message"]

    await site.delete("first")
    await site.ready("second")


async def test_a_queue_that_was_changed_or_deleted_behind_its_object_is_set_back(
    site: Site,
) -> None:
    running = await site.start()
    await site.declare("orders", maxDeliveryCount=3)
    first = await site.ready("orders")

    async with site.admin() as admin:
        await admin.update_queue("orders", max_delivery_count=9)
    await site.edit("orders", {"metadata": {"annotations": {"lockstep.dev/reconcile-at": "1"}}})
    await site.event("DriftCorrected")
    async with site.admin() as admin:
        assert (await admin.get_queue("orders")).max_delivery_count == 3
        await admin.delete_queue("orders")
    assert await running.operator.compare()
    await site.event("EntityRecreated")

    async def is_another() -> bool:
        body = await site.queue("orders")
        return body is not None and body["status"]["entityId"] != first["status"]["entityId"]

    await until(is_another, "the queue is another one")
    assert await running.metric("lockstep_operator_drift_corrections_total") == 1


async def test_an_update_whose_status_was_lost_is_no_drift(site: Site) -> None:
    running = await site.start()
    await site.declare("orders", maxDeliveryCount=3)
    before = await site.ready("orders")
    older = {"status": {"entityRevision": before["status"]["entityRevision"] - 1}}
    await site.kube.patch(QUEUE, "orders", site.namespace, older, subresource="status")

    async def is_told() -> bool:
        body = await site.queue("orders")
        return (
            body is not None
            and body["status"]["entityRevision"] == (before["status"]["entityRevision"])
        )

    await site.edit("orders", {"metadata": {"annotations": {"lockstep.dev/reconcile-at": "1"}}})
    await until(is_told, "the revision is told again")
    assert await running.metric("lockstep_operator_drift_corrections_total") == 0
    assert await site.events("DriftCorrected") == []


async def test_an_object_of_a_restored_kubernetes_counts_although_the_broker_saw_a_later_one(
    site: Site,
) -> None:
    await site.start()
    await site.declare("orders", maxDeliveryCount=3)
    before = await site.ready("orders")
    ids = SystemIds()
    broker = Broker(f"127.0.0.1:{site.server.port}", clock=SystemClock(), ids=ids)
    later = Keeper(f"{site.namespace}/orders", before["metadata"]["uid"], 99)
    await broker.update(site.namespace, "orders", {"max_delivery_count": 7}, later, take_over=False)
    await broker.close()

    await site.declare("orders", maxDeliveryCount=5)
    await site.ready("orders")

    async with site.admin() as admin:
        assert (await admin.get_queue("orders")).max_delivery_count == 5


async def test_an_observer_changes_nothing(site: Site) -> None:
    await site.start()
    await site.declare("seen", managementPolicy="Observe", maxDeliveryCount=3)
    await site.told("seen", "Ready", "False", "EntityMissing")

    async with site.admin() as admin:
        await admin.create_queue("seen", max_delivery_count=7)
    await site.edit("seen", {"metadata": {"annotations": {"lockstep.dev/reconcile-at": "1"}}})

    body = await site.told("seen", "Ready", "True", "Observed")
    differs = (condition(body, "DriftDetected") or {})["message"]
    assert differs == "In the broker maxDeliveryCount is 7, not 3."
    assert body["status"]["effective"]["maxDeliveryCount"] == 7
    async with site.admin() as admin:
        assert (await admin.get_queue("seen")).max_delivery_count == 7


async def test_a_paused_object_is_left_alone(site: Site) -> None:
    await site.start()
    await site.declare("orders")
    await site.ready("orders")
    await site.edit("orders", {"metadata": {"annotations": {"lockstep.dev/paused": "true"}}})
    await site.told("orders", "Reconciling", "True", "Paused")

    await site.declare("orders", maxDeliveryCount=5)
    await site.told("orders", "Reconciling", "True", "Paused")
    async with site.admin() as admin:
        assert (await admin.get_queue("orders")).max_delivery_count == 10

    await site.edit("orders", {"metadata": {"annotations": {"lockstep.dev/paused": None}}})
    body = await site.ready("orders")
    assert condition(body, "Reconciling") is None
    async with site.admin() as admin:
        assert (await admin.get_queue("orders")).max_delivery_count == 5


async def test_a_setting_that_the_broker_refuses_stalls_the_object(site: Site) -> None:
    await site.start()
    await site.declare("orders", maxMessageSizeInKilobytes=102_400)
    body = await site.told("orders", "Stalled", "True", "InvalidSpec")
    assert "maxMessageSizeInKilobytes must be" in (condition(body, "Ready") or {})["message"]

    await site.declare("orders")
    assert condition(await site.ready("orders"), "Stalled") is None


async def test_objects_of_other_namespaces_are_taken_where_the_broker_allows_them(
    site: Site,
) -> None:
    other = await site.kube.make_namespace(f"{site.namespace}-other")
    await site.start()
    body = {
        "apiVersion": "lockstep.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {"name": "orders", "namespace": other},
        "spec": {},
    }
    await site.kube.apply(body)

    async def refused() -> bool:
        found = await site.kube.get(QUEUE, "orders", other)
        return (condition(found, "Ready") or {}).get("reason") == "NotAllowedNamespace"

    await until(refused, "the namespace is refused")
    change = {
        "spec": {"allowedNamespaces": {"matchLabels": {"kubernetes.io/metadata.name": other}}}
    }
    await site.kube.patch(BROKER, "default", site.namespace, change)

    async def ready() -> bool:
        found = await site.kube.get(QUEUE, "orders", other)
        return (condition(found, "Ready") or {}).get("status") == "True"

    await until(ready, "the namespace is taken")


async def test_the_broker_object_tells_how_the_broker_is(site: Site) -> None:
    await site.start()

    async def available() -> bool:
        found = await site.kube.list_all(BROKER, site.namespace)
        return [(condition(one, "Available") or {}).get("status") for one in found] == ["True"]

    await until(available, "the broker is told")
    [told] = [one["status"] for one in await site.kube.list_all(BROKER, site.namespace)]
    assert (told["version"], told["nodesReady"]) == (version("lockstep-broker"), 1)
    assert told["partitionsOwned"] == told["partitionsTotal"] == 1


async def test_events_are_few(site: Site) -> None:
    await site.start()
    await site.declare("orders")
    await site.ready("orders")
    for count in range(2, 6):
        await site.declare("orders", maxDeliveryCount=count)
        await site.ready("orders")
    await site.event("Created")
    await site.event("Updated")

    found = await site.kube.list_all(EVENT, site.namespace)
    assert sorted(one["reason"] for one in found) == ["Created", "Updated"]


async def test_the_quota_of_the_broker_is_kept_and_gives_way_when_an_object_goes(
    site: Site,
) -> None:
    await site.start(spec={"quota": {"maxEntities": 2}})
    await site.declare("first")
    await site.declare("second")
    await site.ready("first")
    await site.ready("second")

    await site.declare("third")
    body = await site.told("third", "Stalled", "True", "QuotaExceeded")
    assert "maxEntities" in (condition(body, "Ready") or {})["message"]

    await site.delete("first")
    await site.ready("third")
