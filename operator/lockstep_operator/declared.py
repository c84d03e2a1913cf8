"""What a Queue object declares, read from what Kubernetes stores.

Here belongs the way from a custom resource to values. Never here: what is done about it (`plan`). The law: what the
schema lets through is read without failing; what it does not, and an older server stored all the same, is told as an
error of the object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from lockstep_operator.durations import InvalidDuration, duration_text, parse_duration

GROUP = "lockstep.dev"
VERSION = "v1alpha1"
FINALIZER = f"{GROUP}/entity"
PAUSED = f"{GROUP}/paused"
FORCE_FINALIZE = f"{GROUP}/force-finalize"
RECONCILE_AT = f"{GROUP}/reconcile-at"


class InvalidSpec(ValueError):
    """The object says what no broker can do; a person must change it."""


class DeletionPolicy(StrEnum):
    """What becomes of the queue when its object is deleted."""

    DELETE = "Delete"
    DELETE_IF_EMPTY = "DeleteIfEmpty"
    RETAIN = "Retain"


class AdoptionPolicy(StrEnum):
    """Whether a queue that is there already may be taken over."""

    IF_UNOWNED = "IfUnowned"
    NEVER = "Never"
    FORCE = "Force"


# Settings that are copied as they are, by their names here and in the broker.
_SAME: Mapping[str, str] = {
    "requiresSession": "requires_session",
    "requiresDuplicateDetection": "requires_duplicate_detection",
    "maxDeliveryCount": "max_delivery_count",
    "deadLetteringOnMessageExpiration": "dead_lettering_on_message_expiration",
    "maxSizeInMegabytes": "max_size_in_megabytes",
    "maxMessageSizeInKilobytes": "max_message_size_in_kilobytes",
    "maxSessionStateSizeInKilobytes": "max_session_state_size_in_kilobytes",
    "forwardTo": "forward_to",
    "forwardDeadLetteredMessagesTo": "forward_dead_lettered_messages_to",
    "userMetadata": "user_metadata",
    "releaseOnDisconnect": "release_on_disconnect",
    "recallOnAbandon": "recall_on_abandon",
}
_DURATIONS: Mapping[str, str] = {
    "lockDuration": "lock_duration",
    "duplicateDetectionHistoryTimeWindow": "duplicate_detection_history_time_window",
    "defaultMessageTimeToLive": "default_message_time_to_live",
    "autoDeleteOnIdle": "auto_delete_on_idle",
    "sessionStateIdleTTL": "session_state_idle_ttl",
}
_CHOICES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "placement": ("placement", {"Spread": "spread", "Single": "single"}),
    "sessionLockExtension": (
        "session_lock_extension",
        {"OnReceive": "on_receive", "Off": "off"},
    ),
    "acceptNext": ("accept_next", {"Enabled": "enabled", "Disabled": "disabled"}),
    "sessionExpiry": (
        "session_expiry",
        {"WholeSession": "whole_session", "PerMessage": "per_message"},
    ),
    "entityStatus": (
        "status",
        {
            "Active": "active",
            "SendDisabled": "send_disabled",
            "ReceiveDisabled": "receive_disabled",
            "Disabled": "disabled",
        },
    ),
}


@dataclass(frozen=True, slots=True)
class DeclaredQueue:
    """A Queue object.

    Attributes:
        namespace: Its Kubernetes namespace.
        name: Its name.
        uid: Its uid.
        generation: Rises with each change of its spec.
        resource_version: Of the object as it was read.
        created: When it was made, as Kubernetes writes it; who was first has a queue that two declare.
        is_going: Whether somebody asked for its deletion.
        has_finalizer: Whether it waits for this operator before it goes.
        is_paused: Whether nothing is to be done about it.
        may_go_at_once: Whether it is to go whatever becomes of the queue.
        broker: The Broker that it names.
        entity: The name of the queue.
        observes_only: Whether the broker is only looked at.
        deletion_policy: What it says of that; None = the operator's default.
        adoption_policy: Whether a queue that is there already may be taken over.
        settings: What it says of the queue, by the broker's names; durations are seconds, None = for ever.
        conditions: Its conditions, as they are stored.
        status: Its whole status, as it is stored.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created: str
    is_going: bool
    has_finalizer: bool
    is_paused: bool
    may_go_at_once: bool
    broker: str
    entity: str
    observes_only: bool
    deletion_policy: DeletionPolicy | None
    adoption_policy: AdoptionPolicy
    settings: Mapping[str, Any]
    conditions: tuple[Mapping[str, Any], ...] = ()
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """How people name the object."""
        return f"{self.namespace}/{self.name}"


def read_queue(body: Mapping[str, Any]) -> DeclaredQueue:
    """Return what an object declares.

    Raises:
        InvalidSpec: A value is none that this operator knows.
    """
    metadata = body["metadata"]
    spec: Mapping[str, Any] = body.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    status = body.get("status") or {}
    try:
        policy = spec.get("deletionPolicy")
        deletion = DeletionPolicy(policy) if policy is not None else None
        adoption = AdoptionPolicy(spec.get("adoptionPolicy", AdoptionPolicy.IF_UNOWNED))
    except ValueError as error:
        raise InvalidSpec(f"{error}. Update the operator, or use a value that it knows.") from error
    return DeclaredQueue(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata.get("resourceVersion", ""),
        created=metadata.get("creationTimestamp", ""),
        is_going=metadata.get("deletionTimestamp") is not None,
        has_finalizer=FINALIZER in (metadata.get("finalizers") or ()),
        is_paused=annotations.get(PAUSED) == "true",
        may_go_at_once=annotations.get(FORCE_FINALIZE) == "true",
        broker=spec.get("brokerName", "default"),
        entity=spec.get("entityName") or metadata["name"],
        observes_only=spec.get("managementPolicy", "Full") == "Observe",
        deletion_policy=deletion,
        adoption_policy=adoption,
        settings=_settings(spec),
        conditions=tuple(status.get("conditions") or ()),
        status=status,
    )


_OURS = {
    **{theirs: ours for ours, theirs in (*_SAME.items(), *_DURATIONS.items())},
    **{theirs: ours for ours, (theirs, _) in _CHOICES.items()},
}
_NAMES = re.compile(r"\b(" + "|".join(sorted(name for name in _OURS if "_" in name)) + r")\b")


def shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of the broker as an object writes them; what is for ever, or empty, is left out."""
    found: dict[str, Any] = {}
    for theirs, ours in _OURS.items():
        value = settings.get(theirs)
        if isinstance(value, timedelta):
            value = duration_text(value)
        elif ours in _CHOICES:
            value = {word: choice for choice, word in _CHOICES[ours][1].items()}.get(str(value))
        if value not in (None, ""):
            found[ours] = value
    return found


def in_our_names(text: str) -> str:
    """Return what the broker says with settings called as objects call them."""
    return _NAMES.sub(lambda match: _OURS[match[0]], text)


def shown_text(value: Any) -> str:
    """Return a value of a setting as YAML writes it; `absent` for none."""
    return (
        "absent" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def _settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        theirs: spec[ours] for ours, theirs in _SAME.items() if spec.get(ours) is not None
    }
    for ours, theirs in _DURATIONS.items():
        if spec.get(ours) is None:
            continue
        try:
            found[theirs] = parse_duration(spec[ours])
        except InvalidDuration as error:
            raise InvalidSpec(f"spec.{ours}: {error}") from error
    for ours, (theirs, choices) in _CHOICES.items():
        value = spec.get(ours)
        if value is None:
            continue
        if value not in choices:
            raise InvalidSpec(
                f"spec.{ours} is one of {', '.join(choices)}; '{value}' was given. Update the operator, or change it."
            )
        found[theirs] = choices[value]
    return found
