"""What a real API server takes for a DeadLetterResubmission and what it refuses, with which words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kube.client import RESUBMISSION, KubeClient
from tests.kube.objects import an_object, changed, refusal, refused_change, resubmission

SOURCE = {"kind": "Queue", "name": "orders", "subQueue": "DeadLetter"}
DEFAULTS: dict[str, Any] = {
    "brokerName": "default",
    "source": SOURCE,
    "mode": "Move",
    "maxMessages": 1000,
    "messageIdPolicy": "Preserve",
    "sessionOrder": "AppendInOrder",
    "dryRun": False,
    "suspend": False,
    "activeDeadlineSeconds": 3600,
    "ttlSecondsAfterFinished": 86400,
}
EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"
PARKED = {"kind": "Queue", "name": "parked"}


def _selector(**fields: Any) -> dict[str, Any]:
    return {"selector": fields}


TAKEN: list[dict[str, Any]] = [
    {},
    {"source": {**SOURCE, "name": "Shop/Orders"}},
    {"target": PARKED},
    {"mode": "Move"},
    _selector(),
    _selector(reasons=["UnknownCurrency"]),
    _selector(reasons=["x" * 4096]),
    _selector(sequenceNumbers=[1, 9_007_199_254_740_993]),
    _selector(sequenceNumbers=list(range(1, 1001))),
    _selector(sessionIds=["A"]),
    _selector(sessionIds=[""]),
    _selector(deadLetteredSince=EARLY),
    _selector(deadLetteredUntil=EARLY),
    _selector(deadLetteredSince=EARLY, deadLetteredUntil=LATE),
    {"maxMessages": 0},
    {"maxMessages": 1 << 40},
    {"maxResubmits": 3},
    {"ratePerSecond": 1},
    {"stripDeadLetterProperties": True},
    {"resetDeliveryCount": True},
    {"messageIdPolicy": "Regenerate"},
    {"sessionOrder": "OldPlaces"},
    {"dryRun": True},
    {"suspend": True},
    {"activeDeadlineSeconds": 1},
    {"ttlSecondsAfterFinished": 0},
]


def _short(value: object) -> str:
    return str(value)[:80]


@pytest.mark.parametrize("spec", TAKEN, ids=_short)
async def test_it_takes(kube: KubeClient, kube_namespace: str, spec: dict[str, Any]) -> None:
    made = await kube.create(resubmission(kube_namespace, **spec), dry_run=True)

    assert made["spec"] == {**DEFAULTS, **spec}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"source": None}, "spec.source: Required"),
    ({"source": {"kind": "Queue"}}, "spec.source.name: Required"),
    ({"source": {"kind": "Rule", "name": "r"}}, "spec.source.kind"),
    ({"source": {"kind": "Queue", "name": ""}}, "spec.source.name"),
    ({"source": {**SOURCE, "topicName": "t"}}, "topicName belongs to a Subscription"),
    ({"source": {"kind": "Subscription", "name": "s"}}, "topicName belongs to a Subscription"),
    (
        {"source": {"kind": "Subscription", "name": "s", "topicName": "t"}},
        "this release resubmits the dead letters of a Queue only",
    ),
    (
        {"source": {**SOURCE, "subQueue": "TransferDeadLetter"}},
        "this release resubmits from DeadLetter only",
    ),
    ({"target": {"kind": "Topic", "name": "t"}}, "this release resubmits into a Queue only"),
    ({"target": {"kind": "Queue"}}, "spec.target.name: Required"),
    ({"target": {"kind": "Queue", "name": "ORDERS"}}, "leave target out to resubmit into it"),
    ({"mode": "Copy"}, "Copy comes later"),
    (_selector(reasons=[]), "spec.selector.reasons"),
    (_selector(reasons=["a", "b"]), "selects by one reason; create an object for each"),
    (_selector(reasons=["x" * 4097]), "spec.selector.reasons[0]"),
    (_selector(sequenceNumbers=[]), "spec.selector.sequenceNumbers"),
    (_selector(sequenceNumbers=[0]), "spec.selector.sequenceNumbers[0]"),
    (_selector(sequenceNumbers=[1] * 1001), "spec.selector.sequenceNumbers"),
    (_selector(sessionIds=[]), "spec.selector.sessionIds"),
    (_selector(sessionIds=["A", "B"]), "selects by one session; create an object for each"),
    (_selector(sessionIds=["x" * 129]), "spec.selector.sessionIds[0]"),
    (_selector(deadLetteredSince="yesterday"), "spec.selector.deadLetteredSince"),
    (
        _selector(deadLetteredSince=LATE, deadLetteredUntil=EARLY),
        "deadLetteredSince must be before deadLetteredUntil",
    ),
    (
        _selector(deadLetteredSince=EARLY, deadLetteredUntil=EARLY),
        "deadLetteredSince must be before deadLetteredUntil",
    ),
    (_selector(enqueuedAfter=EARLY), "use deadLetteredSince and deadLetteredUntil"),
    (_selector(enqueuedBefore=EARLY), "use deadLetteredSince and deadLetteredUntil"),
    (
        _selector(enqueuedAfter=LATE, enqueuedBefore=EARLY),
        "enqueuedAfter must be before enqueuedBefore",
    ),
    (_selector(descriptionContains="x"), "does not select by description; use reasons"),
    (_selector(sqlFilter="amount > 3"), "does not select by sqlFilter"),
    ({"maxMessages": -1}, "spec.maxMessages"),
    ({"maxResubmits": 0}, "spec.maxResubmits"),
    ({"ratePerSecond": 0}, "spec.ratePerSecond"),
    ({"stripDeadLetterProperties": False}, "never keeps reason and description"),
    ({"resetDeliveryCount": False}, "always begins at 0 again"),
    ({"messageIdPolicy": "New"}, "spec.messageIdPolicy"),
    ({"sessionOrder": "SkipLockedSessions"}, "this release has no SkipLockedSessions"),
    ({"sessionOrder": "OldPlaces", "target": PARKED}, "OldPlaces are in the source"),
    ({"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds"),
    ({"ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished"),
]


@pytest.mark.parametrize(("spec", "why"), REFUSED, ids=_short)
async def test_it_refuses(
    kube: KubeClient, kube_namespace: str, spec: dict[str, Any], why: str
) -> None:
    assert why in await refusal(kube, resubmission(kube_namespace, **spec))


async def test_a_source_is_needed(kube: KubeClient, kube_namespace: str) -> None:
    assert "spec: Required" in await refusal(kube, an_object(RESUBMISSION, kube_namespace))


# --- what is asked for once stays ---------------------------------------------------------------------

FULL: dict[str, Any] = {
    "target": PARKED,
    "selector": {
        "reasons": ["UnknownCurrency"],
        "sequenceNumbers": [1, 2],
        "sessionIds": ["A"],
        "deadLetteredSince": EARLY,
        "deadLetteredUntil": LATE,
    },
    "maxResubmits": 3,
}
FROZEN: list[dict[str, Any]] = [
    {"brokerName": "other"},
    {"source": {"name": "other"}},
    {"target": {"name": "other"}},
    {"target": None},
    {"selector": {"reasons": ["Other"]}},
    {"selector": {"sequenceNumbers": [1, 2, 3]}},
    {"selector": {"sessionIds": None}},
    {"selector": {"deadLetteredSince": None}},
    {"selector": {"deadLetteredUntil": "2027-01-01T00:00:00Z"}},
    {"selector": None},
    {"maxMessages": 0},
    {"maxMessages": None, "dryRun": True},
    {"maxResubmits": 4},
    {"maxResubmits": None},
    {"messageIdPolicy": "Regenerate"},
    {"dryRun": True},
    {"activeDeadlineSeconds": 60},
]
WHY = "only suspend, ratePerSecond and ttlSecondsAfterFinished can be changed"


@pytest.mark.parametrize("change", FROZEN, ids=str)
async def test_the_spec_is_frozen(
    kube: KubeClient, kube_namespace: str, change: dict[str, Any]
) -> None:
    made = await kube.create(resubmission(kube_namespace, **FULL))

    assert WHY in await refused_change(kube, RESUBMISSION, made, change)


@pytest.mark.parametrize(
    "change",
    [
        {"sessionOrder": "OldPlaces"},
        {"target": PARKED},
        {"selector": {}},
        {"maxResubmits": 1},
    ],
    ids=str,
)
async def test_what_was_not_said_cannot_be_said_later(
    kube: KubeClient, kube_namespace: str, change: dict[str, Any]
) -> None:
    made = await kube.create(resubmission(kube_namespace))

    assert WHY in await refused_change(kube, RESUBMISSION, made, change)


async def test_it_can_be_suspended_slowed_and_kept(kube: KubeClient, kube_namespace: str) -> None:
    made = await kube.create(resubmission(kube_namespace, **FULL))
    change = {"suspend": True, "ratePerSecond": 5, "ttlSecondsAfterFinished": 60}

    spec = await changed(kube, RESUBMISSION, made, change)
    again = await changed(kube, RESUBMISSION, made, {"suspend": False, "ratePerSecond": None})

    assert spec == {**made["spec"], **change}
    assert again == {**made["spec"], "ttlSecondsAfterFinished": 60}


async def test_columns_show_what_a_person_asks_first(kube: KubeClient, kube_namespace: str) -> None:
    await kube.create(resubmission(kube_namespace, target=PARKED))
    condition = {
        "type": "Failed",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": EARLY,
        "reason": "QuotaExceeded",
        "message": "parked is full.",
    }
    status = {
        "observedGeneration": 1,
        "phase": "Failed",
        "startTime": EARLY,
        "completionTime": LATE,
        "entityPath": "shop/orders",
        "jobNumber": 4,
        "matched": 9,
        "moved": 7,
        "skipped": 2,
        "error": "parked is full.",
        "orderNote": "At the tail.",
        "conditions": [condition],
    }
    told = await kube.patch(
        RESUBMISSION, "again", kube_namespace, {"status": status}, subresource="status"
    )

    columns, [row] = await kube.columns(RESUBMISSION, kube_namespace)

    assert told["status"] == status
    narrow = ["Name", "Phase", "Source", "Moved", "Skipped", "Age"]
    assert [name for name, priority in columns.items() if priority == 0] == narrow
    assert {**row, "Age": ""} == {
        "Name": "again",
        "Phase": "Failed",
        "Source": "orders",
        "Moved": 7,
        "Skipped": 2,
        "Age": "",
        "Target": "parked",
        "Job": 4,
        "Error": "parked is full.",
    }
