"""Conditions of a custom resource, in the form that Kubernetes' tools read.

Here belongs how conditions change. Never here: what they say (`plan`). The laws: a condition keeps its time while its
status stays; one that is normal when it is absent is left out; equal conditions are equal, so nothing is written
twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MESSAGE_CHARS_MAX = 32_768


class Kind(StrEnum):
    """What a condition tells of."""

    READY = "Ready"
    SYNCED = "Synced"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    DRIFT_DETECTED = "DriftDetected"
    DELETION_BLOCKED = "DeletionBlocked"


class Reason(StrEnum):
    """Why a condition is what it is: a closed list, which metrics use too."""

    RECONCILED = "Reconciled"
    APPLIED = "Applied"
    PENDING = "Pending"
    REJECTED = "Rejected"
    PROGRESSING = "Progressing"
    RETRYING = "Retrying"
    PAUSED = "Paused"
    OBSERVED = "Observed"
    IN_SYNC = "InSync"
    CORRECTED = "Corrected"
    REPORTED = "Reported"
    DELETING = "Deleting"
    NOT_EMPTY = "NotEmpty"
    INVALID_SPEC = "InvalidSpec"
    IMMUTABLE_MISMATCH = "ImmutableMismatch"
    NAME_CONFLICT = "NameConflict"
    ADOPTION_REFUSED = "AdoptionRefused"
    NOT_ALLOWED_NAMESPACE = "NotAllowedNamespace"
    QUOTA_EXCEEDED = "QuotaExceeded"
    DEPENDENCY_NOT_READY = "DependencyNotReady"
    ENTITY_MISSING = "EntityMissing"
    BROKER_UNAVAILABLE = "BrokerUnavailable"
    METADATA_STORE_UNAVAILABLE = "MetadataStoreUnavailable"


STALLING = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.IMMUTABLE_MISMATCH,
        Reason.NAME_CONFLICT,
        Reason.ADOPTION_REFUSED,
        Reason.NOT_ALLOWED_NAMESPACE,
        Reason.QUOTA_EXCEEDED,
    }
)
"""Reasons that only a person, or another object, can change: nothing is tried again until something does."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition.

    Attributes:
        kind: What it tells of.
        status: "True", "False" or "Unknown".
        reason: Why.
        message: The same for people, with what to do.
        generation: Of the object that it tells of; 0 = as it is now.
    """

    kind: Kind
    status: str
    reason: Reason
    message: str
    generation: int = 0


def merged(
    before: Iterable[Mapping[str, Any]],
    now: Iterable[Condition],
    *,
    generation: int,
    at: str,
) -> list[dict[str, Any]]:
    """Return conditions as they are to be stored: those that are told now, and no others.

    Args:
        before: What is stored.
        now: What is told now.
        generation: Of the object that they tell of.
        at: The time, as Kubernetes writes it.
    """
    known = {condition.get("type"): condition for condition in before}
    found: list[dict[str, Any]] = []
    for condition in sorted(now, key=lambda one: list(Kind).index(one.kind)):
        old = known.get(condition.kind.value)
        stays = old is not None and old.get("status") == condition.status
        since = old.get("lastTransitionTime") if stays and old is not None else None
        found.append(
            {
                "type": condition.kind.value,
                "status": condition.status,
                "observedGeneration": condition.generation or generation,
                "lastTransitionTime": since or at,
                "reason": condition.reason.value,
                "message": condition.message[:MESSAGE_CHARS_MAX],
            }
        )
    return found


def ready(
    reason: Reason = Reason.RECONCILED, message: str = "The broker has this queue."
) -> tuple[Condition, ...]:
    """Return the conditions of an object that is as it should be."""
    return (
        Condition(Kind.READY, "True", reason, message),
        Condition(Kind.SYNCED, "True", Reason.APPLIED, "The broker accepted the last change."),
    )


def not_ready(reason: Reason, message: str, *, status: str = "False") -> tuple[Condition, ...]:
    """Return the conditions of an object that is not as it should be yet, or cannot be (`STALLING`)."""
    kind, why = (
        (Kind.STALLED, reason) if reason in STALLING else (Kind.RECONCILING, Reason.RETRYING)
    )
    synced = Reason.REJECTED if reason in STALLING else Reason.PENDING
    return (
        Condition(Kind.READY, status, reason, message),
        Condition(Kind.SYNCED, "False", synced, message),
        Condition(kind, "True", why, message),
    )
