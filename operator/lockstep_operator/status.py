"""The status of a Queue object: what is written, and whether it is worth writing.

Here belongs the form of the status. Never here: when it is written. The laws: equal is not written again; counts are
decoration, so they are written only when they say something new.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lockstep_operator.broker import Figures
from lockstep_operator.conditions import Condition, merged
from lockstep_operator.declared import DeclaredQueue, DeletionPolicy, shown
from lockstep_operator.plan import Entity

_STEP = 0.1


def time_text(at_ms: int) -> str:
    """Return a time as Kubernetes writes it, in whole seconds."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def applied(
    queue: DeclaredQueue, path: str, entity: Entity, policy: DeletionPolicy
) -> dict[str, Any]:
    """Return what the status says of a queue that was made or changed as it is declared."""
    return {
        "observedGeneration": queue.generation,
        "entityPath": path,
        "entityId": entity.uid,
        "entityRevision": entity.revision,
        "effective": {**shown(entity.settings), "deletionPolicy": policy.value},
    }


def changes(
    queue: DeclaredQueue,
    stored: Mapping[str, Any],
    conditions: tuple[Condition, ...],
    told: Mapping[str, Any],
    now_ms: int,
) -> dict[str, Any]:
    """Return what is to be merged into the stored status; empty = it says all that already.

    Args:
        queue: What is declared.
        stored: The status as it is stored.
        conditions: All that hold.
        told: Other fields.
        now_ms: The time of day.
    """
    was_observed = stored.get("observedGeneration")
    wanted: dict[str, Any] = {
        "observedGeneration": was_observed
        if queue.is_paused and was_observed
        else queue.generation,
        **told,
        "conditions": merged(
            stored.get("conditions") or (),
            conditions,
            generation=queue.generation,
            at=time_text(now_ms),
        ),
    }
    found = {name: value for name, value in wanted.items() if stored.get(name) != value}
    old = stored.get("effective")
    if isinstance(old, Mapping) and "effective" in found:
        # A merge leaves what it does not name: what is no longer so is taken out by name.
        found["effective"] = {
            **dict.fromkeys(old.keys() - found["effective"].keys()),
            **found["effective"],
        }
    return found


def counts(figures: Figures, now_ms: int) -> dict[str, Any]:
    """Return the part of the status that tells what a queue holds."""
    found: dict[str, Any] = {
        "countDetails": {
            "activeMessageCount": figures.active,
            "deadLetterMessageCount": figures.dead_letters,
            "scheduledMessageCount": figures.scheduled,
            "transferMessageCount": 0,
            "transferDeadLetterMessageCount": 0,
        },
        "sizeInBytes": figures.size_bytes,
        "sessions": {"available": figures.sessions, "locked": figures.locked_sessions},
        "countsUpdatedAt": time_text(now_ms),
    }
    if figures.accessed_ms:
        found["accessedAt"] = time_text(figures.accessed_ms)
    return found


def urgency(stored: Mapping[str, Any], figures: Figures) -> int | None:
    """Return how urgent new counts are: 0 = dead letters changed, 1 = others did; None = hardly any.

    Dead letters count one by one; other counts when they leave or reach zero, or change by a tenth.
    """
    before = stored.get("countDetails") or {}
    if "activeMessageCount" not in before:
        return 1
    if before.get("deadLetterMessageCount", 0) != figures.dead_letters:
        return 0
    sessions = stored.get("sessions") or {}
    pairs = (
        (before.get("activeMessageCount", 0), figures.active),
        (before.get("scheduledMessageCount", 0), figures.scheduled),
        (sessions.get("available", 0), figures.sessions),
        (sessions.get("locked", 0), figures.locked_sessions),
    )
    return 1 if any(_is_step(old, new) for old, new in pairs) else None


def _is_step(old: int, new: int) -> bool:
    return (old == 0) != (new == 0) or abs(new - old) > old * _STEP
