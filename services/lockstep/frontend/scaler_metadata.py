"""What a ScaledObject of KEDA says of the queue that its pods receive from.

Here belongs the reading of a trigger's metadata. Never here: what a queue holds (`frontend.scaler`). The law: a key or
a value that is not known is refused with what would be right: a trigger that is misunderstood scales to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lockstep.core.entity import QueueDefinition, parse_entity_path
from lockstep.core.errors import InvalidOperation, InvalidRequest
from lockstep.core.ids import EntityKey

KEYS = (
    "entity",
    "namespace",
    "metric",
    "sessionsPerPod",
    "targetValue",
    "activationValue",
    "streamIntervalSeconds",
)
# What KEDA reads itself and passes on.
_KEDAS = frozenset({"scalerAddress", "enableTLS", "unsafeSsl"})
_FROM_ENVIRONMENT = "FromEnv"
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
_STREAM_INTERVAL_S = 5.0
_STREAM_INTERVAL_MAX_S = 3600.0


class Metric(StrEnum):
    """What a queue is scaled by; the value is how metadata write it.

    Attributes:
        READY_SESSIONS: Sessions that a receiver could take now, and those that one has.
        ACTIVE_MESSAGES: Messages that a receiver could get now, and those that one has.
        OLDEST_AGE_SECONDS: For how long the oldest message waits that a receiver could get now.
    """

    READY_SESSIONS = "readySessions"
    ACTIVE_MESSAGES = "activeMessages"
    OLDEST_AGE_SECONDS = "oldestAgeSeconds"


@dataclass(frozen=True, slots=True)
class Asked:
    """The metadata of a trigger, understood.

    Attributes:
        entity: The queue.
        metric: What it is scaled by; None = what fits the queue.
        sessions_per_pod: How many sessions a pod takes at a time; None = not said.
        target: How much of another metric is one pod's share; None = not said.
        activation: The pods are wanted only above this much of the metric.
        stream_interval_ms: How often a stream looks at the queue.
    """

    entity: EntityKey
    metric: Metric | None
    sessions_per_pod: float | None
    target: float | None
    activation: float
    stream_interval_ms: int


@dataclass(frozen=True, slots=True)
class Target:
    """What a queue is scaled by, and how much of it is one pod's share."""

    metric: Metric
    per_pod: float

    @property
    def name(self) -> str:
        """The name of the metric in Kubernetes, where it is unique by what KEDA puts before it."""
        return f"lockstep-{self.metric}"


def read_metadata(given: Mapping[str, str], kubernetes_namespace: str) -> Asked:
    """Return what the metadata of a trigger say.

    Args:
        given: The metadata, those included that KEDA reads itself.
        kubernetes_namespace: That of the ScaledObject; the broker namespace has its name unless one is given.

    Raises:
        InvalidRequest: A key or a value is not known, or one is missing.
    """
    known = _known(given)
    if not known.get("entity"):
        raise _wrong("metadata.entity is missing. Name the queue that the pods receive from.")
    entity, dead_letter = parse_entity_path(
        known.get("namespace") or kubernetes_namespace, known["entity"]
    )
    if dead_letter:
        raise _wrong(
            "metadata.entity names a dead-letter store, and pods are scaled by queues. Name the queue."
        )
    metric = known.get("metric")
    if metric is not None and metric not in list(Metric):
        raise _wrong(f"metadata.metric is one of {', '.join(Metric)}; '{metric}' was given.")
    per_pod = _number(known, "sessionsPerPod", least=1)
    interval = _number(known, "streamIntervalSeconds", least=1, most=_STREAM_INTERVAL_MAX_S)
    target = _number(known, "targetValue")
    if target == 0:
        raise _wrong("metadata.targetValue is above 0: it is one pod's share of the metric.")
    return Asked(
        entity=entity,
        metric=None if metric is None else Metric(metric),
        sessions_per_pod=per_pod,
        target=target,
        activation=_number(known, "activationValue") or 0.0,
        stream_interval_ms=round((interval or _STREAM_INTERVAL_S) * 1000),
    )


def target_of(asked: Asked, queue: QueueDefinition) -> Target:
    """Return what a queue is scaled by: its sessions where it has any, unless something else was asked for.

    Raises:
        InvalidRequest: The metadata do not fit the metric.
        InvalidOperation: The queue has no sessions to scale by.
    """
    has_sessions = queue.settings.requires_session
    path = f"{queue.namespace}/{queue.name}"
    fitting = Metric.READY_SESSIONS if has_sessions else Metric.ACTIVE_MESSAGES
    metric = asked.metric or fitting
    if metric is Metric.READY_SESSIONS:
        if not has_sessions:
            raise InvalidOperation(
                f"{path} has no sessions to scale by. Set metadata.metric to {Metric.ACTIVE_MESSAGES}.",
                details={"entity": path},
            )
        if asked.target is not None:
            raise _wrong(
                f"metadata.targetValue does not go with {metric}; sessionsPerPod says how many sessions a pod takes at"
                " a time."
            )
        return Target(metric, asked.sessions_per_pod or 1.0)
    if asked.sessions_per_pod is not None:
        raise _wrong(f"metadata.sessionsPerPod does not go with {metric}; targetValue does.")
    if asked.target is None:
        raise _wrong(
            f"metadata.targetValue is missing: how much of {metric} of {path} is one pod's share?"
        )
    return Target(metric, asked.target)


def _known(given: Mapping[str, str]) -> dict[str, str]:
    """Return our part of the metadata; KEDA has looked up what comes from the environment of the pods."""
    found: dict[str, str] = {}
    for key, value in sorted(given.items()):
        if key in _KEDAS:
            continue
        name = key.removesuffix(_FROM_ENVIRONMENT)
        if name not in KEYS:
            raise _wrong(f"metadata.{key} is not known. There are {', '.join(KEYS)}.")
        if name in found:
            raise _wrong(f"metadata.{name} and metadata.{key} are given. Leave one of them out.")
        found[name] = value
    return found


def _number(
    known: Mapping[str, str], name: str, *, least: float = 0, most: float = 1e12
) -> float | None:
    text = known.get(name)
    if text is None:
        return None
    value = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not least <= value <= most:
        bounds = f"from {least:g} to {most:g}" if most < 1e12 else f"of {least:g} or more"
        raise _wrong(f"metadata.{name} is a number {bounds}; '{text}' was given.")
    return value


def _wrong(what: str) -> InvalidRequest:
    return InvalidRequest(f"The trigger of the ScaledObject cannot be served: {what}")
