"""What a real API server takes for a Queue and what it refuses, with which words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kube.client import QUEUE, KubeClient
from tests.kube.objects import an_object, changed, queue, refusal, refused_change

SESSIONS: dict[str, Any] = {"requiresSession": True}
DUPLICATES: dict[str, Any] = {"requiresDuplicateDetection": True}
DEFAULTS = {
    "brokerName": "default",
    "managementPolicy": "Full",
    "adoptionPolicy": "IfUnowned",
    "requiresSession": False,
    "requiresDuplicateDetection": False,
}
WINDOW = "duplicateDetectionHistoryTimeWindow"


@pytest.mark.parametrize("spec", [None, {}], ids=["no spec", "an empty spec"])
async def test_a_queue_that_says_nothing_has_the_defaults_of_the_schema_and_no_others(
    kube: KubeClient, kube_namespace: str, spec: dict[str, Any] | None
) -> None:
    made = await kube.create(an_object(QUEUE, kube_namespace, spec=spec))

    assert made["spec"] == DEFAULTS


TAKEN: list[dict[str, Any]] = [
    {"entityName": "a"},
    {"entityName": "Shop/Orders.v2_x-1"},
    {"entityName": "a" * 260},
    {"brokerName": "second-broker"},
    {"managementPolicy": "Observe"},
    {"managementPolicy": "Observe", "deletionPolicy": "Retain"},
    {"managementPolicy": "Full", "deletionPolicy": "Delete"},
    {"deletionPolicy": "DeleteIfEmpty"},
    {"adoptionPolicy": "Force"},
    {"entityStatus": "ReceiveDisabled"},
    {"userMetadata": "x" * 1024},
    {"autoDeleteOnIdle": "PT5M"},
    {"autoDeleteOnIdle": "P30DT12H"},
    {"autoDeleteOnIdle": "P10675199DT2H48M5.4775807S"},
    {"lockDuration": "PT5S"},
    {"lockDuration": "PT5M"},
    {"lockDuration": "PT1M30S"},
    {"lockDuration": "PT300S"},
    {"maxDeliveryCount": 1},
    {"maxDeliveryCount": 2000},
    {"defaultMessageTimeToLive": "PT1S"},
    {"defaultMessageTimeToLive": "PT99999999H"},
    {"defaultMessageTimeToLive": "P10675199DT2H48M5.4775807S"},
    {"deadLetteringOnMessageExpiration": True},
    {"maxSizeInMegabytes": 81920},
    {"maxMessageSizeInKilobytes": 102400},
    {"forwardTo": "elsewhere"},
    {"forwardDeadLetteredMessagesTo": "graveyard"},
    {**SESSIONS, "forwardDeadLetteredMessagesTo": "graveyard"},
    {"placement": "Single"},
    DUPLICATES,
    {**DUPLICATES, WINDOW: "PT20S"},
    {**DUPLICATES, WINDOW: "P7D"},
    {**DUPLICATES, WINDOW: "PT168H"},
    {**DUPLICATES, WINDOW: "PT1H30M10S"},
    {
        **SESSIONS,
        "sessionLockExtension": "Off",
        "releaseOnDisconnect": True,
        "recallOnAbandon": True,
        "acceptNext": "Disabled",
        "sessionExpiry": "PerMessage",
        "sessionStateIdleTTL": "PT5M",
        "maxSessionStateSizeInKilobytes": 1,
        "placement": "Spread",
    },
]


@pytest.mark.parametrize("spec", TAKEN, ids=str)
async def test_it_takes(kube: KubeClient, kube_namespace: str, spec: dict[str, Any]) -> None:
    made = await kube.create(queue(kube_namespace, **spec), dry_run=True)

    assert made["spec"] == {**DEFAULTS, **spec}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"brokerName": "Main"}, "spec.brokerName"),
    ({"brokerName": ""}, "spec.brokerName"),
    ({"brokerName": "a" * 64}, "spec.brokerName"),
    ({"entityName": ""}, "spec.entityName"),
    ({"entityName": "-orders"}, "spec.entityName"),
    ({"entityName": "orders/"}, "spec.entityName"),
    ({"entityName": "what?"}, "a queue's name has letters, digits and . _ - /"),
    ({"entityName": "a" * 261}, "spec.entityName"),
    ({"managementPolicy": "full"}, "spec.managementPolicy"),
    ({"deletionPolicy": "Orphan"}, "spec.deletionPolicy"),
    ({"adoptionPolicy": "Always"}, "spec.adoptionPolicy"),
    ({"entityStatus": "Paused"}, "spec.entityStatus"),
    ({"userMetadata": "x" * 1025}, "spec.userMetadata"),
    ({"managementPolicy": "Observe", "deletionPolicy": "Delete"}, "only observed is retained"),
    ({"managementPolicy": "Observe", "deletionPolicy": "DeleteIfEmpty"}, "leave deletionPolicy"),
    ({"autoDeleteOnIdle": "PT4M59S"}, "autoDeleteOnIdle must be PT5M or longer"),
    ({"autoDeleteOnIdle": "PT"}, "write a duration in"),
    ({"autoDeleteOnIdle": "P"}, "write a duration in"),
    ({"autoDeleteOnIdle": "P1DT"}, "write a duration in"),
    ({"autoDeleteOnIdle": "5m"}, "for example PT30S, PT1H30M or P14D"),
    ({"autoDeleteOnIdle": "P1W"}, "spec.autoDeleteOnIdle"),
    ({"lockDuration": "PT4S"}, "lockDuration must be from PT5S to PT5M"),
    ({"lockDuration": "PT5M1S"}, "lockDuration must be from PT5S to PT5M"),
    ({"lockDuration": "PT301S"}, "lockDuration must be from PT5S to PT5M"),
    ({"lockDuration": "PT"}, "spec.lockDuration"),
    ({"lockDuration": "60s"}, "for example PT30S or PT1M30S"),
    ({"lockDuration": "PT1.5S"}, "in minutes and whole seconds"),
    ({"lockDuration": "PT1H"}, "in minutes and whole seconds"),
    ({"maxDeliveryCount": 0}, "spec.maxDeliveryCount"),
    ({"maxDeliveryCount": 2001}, "spec.maxDeliveryCount"),
    ({"defaultMessageTimeToLive": "PT0.9S"}, "defaultMessageTimeToLive must be PT1S or longer"),
    ({"defaultMessageTimeToLive": "PT"}, "write a duration in"),
    ({"maxSizeInMegabytes": 0}, "spec.maxSizeInMegabytes"),
    ({"maxSizeInMegabytes": 81921}, "spec.maxSizeInMegabytes"),
    ({"maxMessageSizeInKilobytes": 0}, "spec.maxMessageSizeInKilobytes"),
    ({"maxMessageSizeInKilobytes": 102401}, "spec.maxMessageSizeInKilobytes"),
    ({"forwardTo": ""}, "spec.forwardTo"),
    ({"forwardTo": "Orders"}, "a queue cannot forward its messages to itself"),
    ({"entityName": "Other", "forwardTo": "oTHER"}, "a queue cannot forward its messages to it"),
    ({"forwardDeadLetteredMessagesTo": "orders"}, "cannot forward its dead letters to itself"),
    ({**SESSIONS, "forwardTo": "elsewhere"}, "a queue with sessions cannot forward its messages"),
    ({"placement": "Everywhere"}, "spec.placement"),
    ({WINDOW: "PT10M"}, f"{WINDOW} needs requiresDuplicateDetection"),
    ({**DUPLICATES, WINDOW: "PT19S"}, f"{WINDOW} must be from PT20S to P7D"),
    ({**DUPLICATES, WINDOW: "PT168H1S"}, f"{WINDOW} must be from PT20S to P7D"),
    ({**DUPLICATES, WINDOW: "P8D"}, f"{WINDOW} must be from PT20S to P7D"),
    ({**DUPLICATES, WINDOW: "P0D"}, f"{WINDOW} must be from PT20S to P7D"),
    ({**DUPLICATES, WINDOW: "10m"}, "for example PT10M or P1D"),
    ({**DUPLICATES, WINDOW: "PT"}, "write a duration in"),
    ({**SESSIONS, "sessionLockExtension": "OnRenew"}, "spec.sessionLockExtension"),
    ({**SESSIONS, "acceptNext": "Sometimes"}, "spec.acceptNext"),
    ({**SESSIONS, "sessionExpiry": "None"}, "spec.sessionExpiry"),
    ({**SESSIONS, "sessionStateIdleTTL": "PT299S"}, "sessionStateIdleTTL must be PT5M or longer"),
    ({**SESSIONS, "sessionStateIdleTTL": "PT"}, "write a duration in"),
    ({**SESSIONS, "maxSessionStateSizeInKilobytes": 0}, "spec.maxSessionStateSizeInKilobytes"),
    ({"sessionLockExtension": "Off"}, "need requiresSession"),
    ({"releaseOnDisconnect": False}, "need requiresSession"),
    ({"recallOnAbandon": True}, "need requiresSession"),
    ({"acceptNext": "Enabled"}, "need requiresSession"),
    ({"sessionExpiry": "PerMessage"}, "need requiresSession"),
    ({"sessionStateIdleTTL": "P1D"}, "need requiresSession"),
    ({"maxSessionStateSizeInKilobytes": 64}, "need requiresSession"),
]


@pytest.mark.parametrize(("spec", "why"), REFUSED, ids=str)
async def test_it_refuses(
    kube: KubeClient, kube_namespace: str, spec: dict[str, Any], why: str
) -> None:
    assert why in await refusal(kube, queue(kube_namespace, **spec))


FIXED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"requiresSession": True}, "requiresSession is fixed"),
    (SESSIONS, {"requiresSession": False}, "requiresSession is fixed"),
    (SESSIONS, {"requiresSession": None}, "requiresSession is fixed"),
    ({}, {"requiresDuplicateDetection": True}, "requiresDuplicateDetection is fixed"),
    (DUPLICATES, {"requiresDuplicateDetection": None}, "requiresDuplicateDetection is fixed"),
    ({}, {"brokerName": "other"}, "brokerName is fixed"),
    ({}, {"entityName": "other"}, "entityName is fixed"),
    ({"entityName": "one"}, {"entityName": "two"}, "entityName is fixed"),
    ({"entityName": "one"}, {"entityName": None}, "entityName is fixed"),
    ({}, {"placement": "Single"}, "placement is fixed"),
    ({"placement": "Spread"}, {"placement": "Single"}, "placement is fixed"),
    ({"placement": "Spread"}, {"placement": None}, "placement is fixed"),
]


@pytest.mark.parametrize(("spec", "change", "why"), FIXED, ids=str)
async def test_what_is_fixed_cannot_be_changed_added_or_dropped(
    kube: KubeClient, kube_namespace: str, spec: dict[str, Any], change: dict[str, Any], why: str
) -> None:
    made = await kube.create(queue(kube_namespace, **spec))

    assert why in await refused_change(kube, QUEUE, made, change)


async def test_everything_else_can_be_changed(kube: KubeClient, kube_namespace: str) -> None:
    made = await kube.create(queue(kube_namespace, **SESSIONS, **DUPLICATES, placement="Spread"))
    change = {
        "managementPolicy": "Observe",
        "deletionPolicy": "Retain",
        "adoptionPolicy": "Never",
        "entityStatus": "Disabled",
        "userMetadata": "ours",
        "autoDeleteOnIdle": "PT10M",
        "lockDuration": "PT30S",
        "maxDeliveryCount": 3,
        "defaultMessageTimeToLive": "P14D",
        "deadLetteringOnMessageExpiration": True,
        "maxSizeInMegabytes": 10,
        "maxMessageSizeInKilobytes": 64,
        "forwardDeadLetteredMessagesTo": "graveyard",
        WINDOW: "PT1M",
        "sessionLockExtension": "Off",
        "releaseOnDisconnect": True,
        "recallOnAbandon": True,
        "acceptNext": "Disabled",
        "sessionExpiry": "PerMessage",
        "sessionStateIdleTTL": "P1D",
        "maxSessionStateSizeInKilobytes": 8,
    }

    spec = await changed(kube, QUEUE, made, change)

    assert spec == {**made["spec"], **change}


# --- what people see ---------------------------------------------------------------------------------

STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "entityPath": "shop/orders",
    "entityId": "01J",
    "entityRevision": 7,
    "effective": {"lockDuration": "PT1M", "maxDeliveryCount": 10, "deletionPolicy": "Retain"},
    "countDetails": {"activeMessageCount": 620, "deadLetterMessageCount": 3},
    "sizeInBytes": 12,
    "sessions": {"available": 1, "locked": 0},
    "accessedAt": "2026-01-01T00:00:00Z",
    "countsUpdatedAt": "2026-01-01T00:00:00Z",
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "reason": "Reconciled",
            "message": "The broker has this queue.",
        }
    ],
}


async def test_a_status_is_stored_whole_and_leaves_the_spec_alone(
    kube: KubeClient, kube_namespace: str
) -> None:
    made = await kube.create(queue(kube_namespace))

    told = await kube.patch(
        QUEUE,
        "orders",
        kube_namespace,
        {"status": STATUS, "spec": {"lockDuration": "PT5S"}},
        subresource="status",
    )

    assert told["status"] == STATUS
    assert (told["spec"], told["metadata"]["generation"]) == (made["spec"], 1)


async def test_two_conditions_of_one_type_are_refused(
    kube: KubeClient, kube_namespace: str
) -> None:
    await kube.create(queue(kube_namespace))
    status = {"conditions": STATUS["conditions"] * 2}

    with pytest.raises(Exception, match="Duplicate value"):
        await kube.patch(QUEUE, "orders", kube_namespace, {"status": status}, subresource="status")


async def test_columns_show_what_a_person_asks_first(kube: KubeClient, kube_namespace: str) -> None:
    await kube.create(queue(kube_namespace, **SESSIONS))
    await kube.patch(QUEUE, "orders", kube_namespace, {"status": STATUS}, subresource="status")

    columns, [row] = await kube.columns(QUEUE, kube_namespace)

    narrow = ["Name", "Ready", "Reason", "Sessions", "Active", "DLQ", "Age"]
    assert [name for name, priority in columns.items() if priority == 0] == narrow
    wide = ["Entity", "Lock", "MaxDelivery", "Policy", "Message"]
    assert [name for name, priority in columns.items() if priority == 1] == wide
    assert {**row, "Age": ""} == {
        "Name": "orders",
        "Ready": "True",
        "Reason": "Reconciled",
        "Sessions": True,
        "Active": 620,
        "DLQ": 3,
        "Age": "",
        "Entity": "shop/orders",
        "Lock": "PT1M",
        "MaxDelivery": 10,
        "Policy": "Retain",
        "Message": "The broker has this queue.",
    }


async def test_queues_with_sessions_are_found_by_that(
    kube: KubeClient, kube_namespace: str
) -> None:
    await kube.create(queue(kube_namespace, "plain"))
    await kube.create(queue(kube_namespace, "in-order", **SESSIONS))

    found = await kube.list_all(QUEUE, kube_namespace, fieldSelector="spec.requiresSession=true")

    assert [one["metadata"]["name"] for one in found] == ["in-order"]


async def test_our_kinds_have_short_names_and_a_category(kube: KubeClient) -> None:
    found = await kube.call("GET", "/apis/lockstep.dev/v1alpha1")

    names = {one["kind"]: one for one in found["resources"] if "/" not in one["name"]}
    assert {kind: one["shortNames"] for kind, one in names.items()} == {
        "Broker": ["lkb"],
        "DeadLetterResubmission": ["lkr"],
        "Queue": ["lkq"],
    }
    assert all(one["categories"] == ["lockstep"] for one in names.values())
