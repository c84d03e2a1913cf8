"""What is to be done about a Queue object: a pure function of what is declared and what is seen.

Here belongs the decision. Never here: how it is carried out (`reconciler`), or Kubernetes and the broker. The laws:
it looks at how things are, not at what happened, so it may be asked at any time and as often as one likes; it names
one step at a time, the finalizer before the first write; a queue with messages is never deleted unless its policy
says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lockstep_operator.conditions import Condition, Kind, Reason, not_ready, ready
from lockstep_operator.declared import (
    AdoptionPolicy,
    DeclaredQueue,
    DeletionPolicy,
    shown,
    shown_text,
)

MANAGER = "lockstep-operator"
"""What operators are called in the broker as those who keep a queue."""

# Fixed when a queue is created, with what they are when nobody says.
_FIXED: Mapping[str, Any] = {
    "requires_session": False,
    "requires_duplicate_detection": False,
    "placement": None,
}


@dataclass(frozen=True, slots=True)
class Entity:
    """A queue as the broker has it.

    Attributes:
        uid: Made new at each creation.
        revision: Rises with each change of its definition.
        settings: All of them; durations are timedeltas, None = for ever.
        manager_uid: The uid of the object that keeps it; empty = none.
        manager_source: The name of that object.
        manager_generation: Of that object, as it was applied last.
        manager_name: What keeps it: operators have one name, other programs have others.
    """

    uid: str
    revision: int
    settings: Mapping[str, Any]
    manager_uid: str = ""
    manager_source: str = ""
    manager_generation: int = 0
    manager_name: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known beside the object.

    Attributes:
        broker: Whether its Broker is there.
        is_reachable: Whether the broker answers; if not, `entity` says nothing.
        unreachable_reason: Which part of it does not.
        entity: The queue; None = it is not there.
        rival: The object that keeps the queue, if it is another one that is there and declares it too.
        namespace_allowed: Whether the Broker takes objects of this namespace.
        namespace_going: Whether somebody deletes the namespace.
    """

    broker: bool = True
    is_reachable: bool = True
    unreachable_reason: Reason = Reason.BROKER_UNAVAILABLE
    entity: Entity | None = None
    rival: DeclaredQueue | None = None
    namespace_allowed: bool = True
    namespace_going: bool = False


class Action(StrEnum):
    """What is to be done now."""

    NOTHING = "nothing"
    ADD_FINALIZER = "add_finalizer"
    DROP_FINALIZER = "drop_finalizer"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Event:
    """What people are told once."""

    kind: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and what to tell.

    Attributes:
        action: What to do. After anything but `NOTHING` the object is looked at again.
        conditions: What to tell of the object; empty = that is known only when the action was carried out.
        takes_over: Of an update, whether another object may have kept the queue.
        if_empty: Of a deletion, whether the queue must be empty.
        events: What people are told once the action succeeded.
        is_retried: Whether it may help to look again after a while.
        is_presumed: Whether it follows from the queue not being there, or being another's, and nobody can take it back:
            read the queue before.
    """

    action: Action
    conditions: tuple[Condition, ...] = ()
    takes_over: bool = False
    if_empty: bool = False
    events: tuple[Event, ...] = ()
    is_retried: bool = False
    is_presumed: bool = False


def effective_policy(queue: DeclaredQueue, default: DeletionPolicy) -> DeletionPolicy:
    """Return what becomes of the queue when its object is deleted."""
    if queue.observes_only:
        return DeletionPolicy.RETAIN
    return queue.deletion_policy or default


def plan(queue: DeclaredQueue, seen: Seen, default_policy: DeletionPolicy) -> Plan:
    """Return what is to be done about an object.

    Args:
        queue: What it declares.
        seen: What is known beside it.
        default_policy: The operator's deletion policy, where the object names none.
    """
    policy = effective_policy(queue, default_policy)
    if queue.is_paused and not (queue.is_going and queue.may_go_at_once):
        return _paused(queue)
    if queue.is_going:
        return _going(queue, seen, policy)
    if not seen.namespace_allowed:
        message = (
            f"The Broker '{queue.broker}' takes no objects of namespace {queue.namespace}. Add it to"
            " spec.allowedNamespaces of the Broker, or use another namespace."
        )
        return _stalled(Reason.NOT_ALLOWED_NAMESPACE, message)
    if not seen.broker:
        message = f"There is no Broker '{queue.broker}'. Create it, or name another one; this object waits for it."
        return Plan(Action.NOTHING, not_ready(Reason.DEPENDENCY_NOT_READY, message))
    if not seen.is_reachable:
        return _unreachable(queue, seen)
    if queue.observes_only:
        return _observed(queue, seen.entity)
    keeps = policy is DeletionPolicy.RETAIN
    if queue.has_finalizer == keeps:
        return Plan(Action.DROP_FINALIZER if keeps else Action.ADD_FINALIZER)
    if seen.entity is None:
        return _missing(queue)
    return _there(queue, seen, seen.entity, policy)


# --- on its way out ----------------------------------------------------------------------------------


def _going(queue: DeclaredQueue, seen: Seen, policy: DeletionPolicy) -> Plan:
    if not queue.has_finalizer:
        return Plan(Action.NOTHING)
    let_go = Plan(Action.DROP_FINALIZER)
    if queue.may_go_at_once or policy is DeletionPolicy.RETAIN or not seen.broker:
        return let_go
    if seen.namespace_going and policy is DeletionPolicy.DELETE_IF_EMPTY:
        return Plan(
            Action.DROP_FINALIZER,
            events=(
                Event(
                    "Warning",
                    "Orphaned",
                    f"The namespace {queue.namespace} is being deleted. Its queues stay in the broker, with their"
                    f" messages: {queue.entity}, and any others.",
                ),
            ),
        )
    if not seen.is_reachable:
        message = "The broker does not answer, so the queue cannot be deleted. It is tried again."
        return Plan(Action.NOTHING, _blocked(Reason.BROKER_UNAVAILABLE, message), is_retried=True)
    entity = seen.entity
    if entity is None or entity.manager_uid != queue.uid:
        # One that nobody keeps was never taken over by this object: a refused adoption must not end in a deletion.
        return Plan(Action.DROP_FINALIZER, is_presumed=True)
    return Plan(
        Action.DELETE,
        _blocked(Reason.DELETING, "The queue is being deleted."),
        if_empty=policy is DeletionPolicy.DELETE_IF_EMPTY,
    )


def deletion_blocked(held: str) -> tuple[Condition, ...]:
    """Return the conditions of an object whose queue is not empty; `held` says what is in it."""
    return _blocked(
        Reason.NOT_EMPTY,
        f"The queue is not empty: {held}. Receive its messages, resubmit or purge its dead letters (lockstep dlq), or"
        " set spec.deletionPolicy to Delete or to Retain.",
    )


def deletion_waits(why: str) -> tuple[Condition, ...]:
    """Return the conditions of an object whose queue could not be looked at; `why` says what the broker told."""
    message = f"The queue cannot be deleted yet: {why} It is tried again."
    return _blocked(Reason.BROKER_UNAVAILABLE, message)


def _blocked(reason: Reason, message: str) -> tuple[Condition, ...]:
    return (
        Condition(Kind.READY, "False", Reason.DELETING, message),
        Condition(Kind.DELETION_BLOCKED, "True", reason, message),
    )


# --- in the broker -----------------------------------------------------------------------------------


def _missing(queue: DeclaredQueue) -> Plan:
    events = (Event("Normal", "Created", f"Created the queue {queue.entity}."),)
    if queue.status.get("entityId"):
        lost = f"The queue {queue.entity} was deleted behind this object and is created again; its messages are gone."
        events = (Event("Warning", "EntityRecreated", lost),)
    return Plan(Action.CREATE, events=events)


def _there(queue: DeclaredQueue, seen: Seen, entity: Entity, policy: DeletionPolicy) -> Plan:
    mismatch = _mismatch(queue, entity)
    if entity.manager_uid == queue.uid:
        return _ours(queue, entity, policy) if not mismatch else _stalled(*mismatch)
    is_foreign = entity.manager_name not in ("", MANAGER)
    if is_foreign and queue.adoption_policy is not AdoptionPolicy.FORCE:
        message = (
            f"The queue {queue.entity} is kept by {entity.manager_name} ({entity.manager_source or 'no source named'})."
            " Have it let go of the queue, or set spec.adoptionPolicy to Force."
        )
        return _stalled(Reason.NAME_CONFLICT, message)
    if not entity.manager_uid and queue.adoption_policy is AdoptionPolicy.NEVER:
        message = (
            f"The broker has a queue {queue.entity} already that nobody keeps, and spec.adoptionPolicy is Never. Delete"
            " the queue, or set IfUnowned."
        )
        return _stalled(Reason.ADOPTION_REFUSED, message)
    if seen.rival is not None and not _goes_first(queue, seen.rival):
        message = (
            f"The queue {queue.entity} is declared by {seen.rival.key} as well, which was there before. Delete one of"
            " the two; this object takes over when the other one goes."
        )
        return _stalled(Reason.NAME_CONFLICT, message)
    if mismatch:
        return _stalled(*mismatch)
    adopted = Event("Normal", "Adopted", f"Took over the queue {queue.entity}.")
    return Plan(Action.UPDATE, takes_over=bool(entity.manager_uid), events=(adopted,))


def _goes_first(queue: DeclaredQueue, rival: DeclaredQueue) -> bool:
    """Whether an object has a queue before another one that declares it: who was made first, or forces it."""
    if queue.adoption_policy is AdoptionPolicy.FORCE:
        return rival.adoption_policy is not AdoptionPolicy.FORCE or _age(queue) < _age(rival)
    return rival.adoption_policy is not AdoptionPolicy.FORCE and _age(queue) < _age(rival)


def _age(queue: DeclaredQueue) -> tuple[str, str]:
    return (queue.created, queue.key)


def _mismatch(queue: DeclaredQueue, entity: Entity) -> tuple[Reason, str] | None:
    """Return why the queue can never be what is declared; None = it can."""
    for name, default in _FIXED.items():
        wanted = queue.settings.get(name, default)
        if wanted is not None and wanted != entity.settings.get(name):
            ours, has = _shown_setting(name, entity.settings.get(name))
            _, says = _shown_setting(name, wanted)
            return (
                Reason.IMMUTABLE_MISMATCH,
                f"The queue {queue.entity} in the broker has {ours}: {has}, this object says {says}, and that is fixed"
                " when a queue is created. Declare another queue, or delete that one.",
            )
    return None


def tells_policy(queue: DeclaredQueue, policy: DeletionPolicy) -> bool:
    """Whether an object tells its deletion policy as it is; the operator's default may have changed."""
    return (queue.status.get("effective") or {}).get("deletionPolicy") in (None, policy.value)


def _ours(queue: DeclaredQueue, entity: Entity, policy: DeletionPolicy) -> Plan:
    status = queue.status
    is_applied = entity.manager_generation == queue.generation
    knows = (status.get("observedGeneration"), status.get("entityId"), status.get("entityRevision"))
    is_told = knows == (queue.generation, entity.uid, entity.revision)
    if is_applied and is_told and tells_policy(queue, policy):
        return Plan(Action.NOTHING, ready())
    events: tuple[Event, ...] = ()
    if not is_applied:
        events = (Event("Normal", "Updated", f"Changed the queue {queue.entity}."),)
    elif status.get("entityRevision") not in (None, entity.revision):
        text = f"The queue {queue.entity} was changed behind this object and is set back."
        events = (Event("Normal", "DriftCorrected", text),)
    return Plan(Action.UPDATE, events=events)


def _observed(queue: DeclaredQueue, entity: Entity | None) -> Plan:
    if queue.has_finalizer:
        return Plan(Action.DROP_FINALIZER)
    if entity is None:
        message = f"The broker has no queue {queue.entity}, and this object only observes."
        return Plan(
            Action.NOTHING,
            (Condition(Kind.READY, "False", Reason.ENTITY_MISSING, message),),
        )
    wanted, there = shown(queue.settings), shown(entity.settings)
    others = [name for name, value in wanted.items() if there.get(name) != value]
    message = "The queue is there; this object only observes."
    differs = Condition(Kind.DRIFT_DETECTED, "False", Reason.IN_SYNC, message)
    if others:
        told = ", ".join(
            f"{name} is {shown_text(there.get(name))}, not {shown_text(wanted[name])}"
            for name in sorted(others)
        )
        differs = Condition(Kind.DRIFT_DETECTED, "True", Reason.REPORTED, f"In the broker {told}.")
    return Plan(Action.NOTHING, (Condition(Kind.READY, "True", Reason.OBSERVED, message), differs))


def _shown_setting(name: str, value: Any) -> tuple[str, str]:
    """Return the name and the value of a setting as objects write them."""
    [(ours, shown_value)] = shown({name: value}).items()
    return ours, shown_text(shown_value)


# --- waiting -----------------------------------------------------------------------------------------


def _kept(queue: DeclaredQueue) -> tuple[Condition, ...]:
    """Return what was told before, but for what was to be done."""
    return tuple(
        Condition(
            Kind(one["type"]),
            one["status"],
            Reason(one["reason"]),
            one.get("message", ""),
            one.get("observedGeneration", 0),
        )
        for one in queue.conditions
        if one.get("type") not in (Kind.RECONCILING, Kind.STALLED)
        and one.get("type") in set(Kind)
        and one.get("reason") in set(Reason)
    )


def _paused(queue: DeclaredQueue) -> Plan:
    """Nothing is done; what was told before stays, beside that."""
    message = "This object is paused (annotation lockstep.dev/paused). Nothing is done about it, deletion included."
    paused = Condition(Kind.RECONCILING, "True", Reason.PAUSED, message)
    return Plan(Action.NOTHING, (*_kept(queue), paused))


def _unreachable(queue: DeclaredQueue, seen: Seen) -> Plan:
    """An object that has nothing to wait for keeps what was told of it."""
    is_applied = queue.status.get("observedGeneration") == queue.generation
    was_ready = any(
        c.get("type") == Kind.READY and c.get("status") == "True" for c in queue.conditions
    )
    if is_applied and was_ready:
        return Plan(Action.NOTHING, _kept(queue), is_retried=True)
    message = "The broker does not answer. This change is applied when it does."
    return Plan(
        Action.NOTHING,
        not_ready(seen.unreachable_reason, message, status="Unknown"),
        is_retried=True,
    )


def _stalled(reason: Reason, message: str) -> Plan:
    return Plan(Action.NOTHING, not_ready(reason, message))
