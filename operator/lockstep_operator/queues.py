"""Carrying out what is planned for Queue objects.

Here belongs one look at one object: see, plan, do, tell. Never here: the decision (`plan`), or when to look
(`work_queue`). The laws: the decision is made anew after each thing that was done; the status is written once, at the
end, and only if it says something new; an error of one object never stops another one.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from lockstep.core import errors
from lockstep.core.errors import LockstepError
from lockstep_operator.broker import Figures, Found, Keeper, is_unreachable
from lockstep_operator.conditions import Condition, Kind, Reason, not_ready
from lockstep_operator.declared import (
    FINALIZER,
    RECONCILE_AT,
    DeclaredQueue,
    DeletionPolicy,
    InvalidSpec,
    in_our_names,
    read_queue,
)
from lockstep_operator.kube import BROKERS, QUEUES, KubeError
from lockstep_operator.looks import Parts, Result
from lockstep_operator.objects import Body, Key
from lockstep_operator.plan import (
    Action,
    Event,
    Plan,
    Seen,
    deletion_blocked,
    deletion_waits,
    effective_policy,
    plan,
)
from lockstep_operator.queue_look import QueueLook
from lockstep_operator.status import applied, changes, counts

log = logging.getLogger(__name__)

_STEPS_MAX = 8
_BLOCKED_LEAST_MS = 30_000
_ASKED_SPARE = 1_000


class Queues:
    """Looks at Queue objects."""

    def __init__(self, parts: Parts) -> None:
        """Look with `parts`."""
        self._parts = parts
        self._asked: dict[str, str] = {}
        # Broker namespaces of queues that are being made: the quota counts them already.
        self._making: list[str] = []

    async def look_at(self, key: Key) -> Result:
        """Do what is to be done about an object.

        Raises:
            KubeError: Kubernetes does not answer, or refuses what the operator is allowed to do by its chart.
        """
        body = self._parts.objects.get(key)
        if body is None or not self._parts.around.is_ours(body):
            return Result(outcome="noop")
        try:
            queue = read_queue(body)
        except InvalidSpec as error:
            return await self._invalid(key, body, str(error))
        look = QueueLook(key, body, queue)
        await self._ask_anew(look)
        for _ in range(_STEPS_MAX):
            decided = plan(look.queue, await self._see(look), self._default_policy)
            if decided.is_presumed and not look.has_read:
                if not await self._confirm(look):
                    break
                continue
            if decided.action is Action.NOTHING:
                look.conditions = decided.conditions
                look.is_retried = decided.is_retried
                self._tell_observed(look)
                break
            if not await self._carry_out(look, decided):
                break
        else:
            look.conditions = not_ready(
                Reason.RETRYING, "The queue changes faster than this operator. It is tried again."
            )
            look.is_retried = True
        return await self._tell(look)

    @property
    def _default_policy(self) -> Any:
        return self._parts.settings.broker.default_policy

    # --- seeing ------------------------------------------------------------------------------------

    async def _ask_anew(self, look: QueueLook) -> None:
        """Read the queue anew if somebody asked for that by the annotation."""
        annotations = look.body["metadata"].get("annotations") or {}
        asked = annotations.get(RECONCILE_AT, "")
        objects = self._parts.objects
        if not asked or self._asked.get(look.queue.uid) == asked:
            return
        # After an outage everything is read anyway.
        if self._parts.breaker.is_open or await self._read_again(look.queue):
            if len(self._asked) > _ASKED_SPARE + 2 * objects.count(QUEUES.kind):
                self._asked = {k: v for k, v in self._asked.items() if objects.by_uid(k)}
            self._asked[look.queue.uid] = asked

    async def _confirm(self, look: QueueLook) -> bool:
        """Read the queue before something is done that nobody can take back; return whether to plan again."""
        look.has_read = await self._read_again(look.queue)
        if look.has_read or self._parts.breaker.is_open:
            return True
        look.conditions, look.is_retried = deletion_waits("the broker did not tell of it."), True
        return False

    async def _see(self, look: QueueLook) -> Seen:
        parts, queue = self._parts, look.queue
        found = self._found(queue)
        look.entity = entity = found.entity if found else None
        return Seen(
            broker=await parts.around.has_broker(queue),
            is_reachable=parts.mirror.is_loaded and not parts.breaker.is_open,
            unreachable_reason=parts.breaker.reason,
            entity=entity,
            rival=await parts.around.rival(queue, entity),
            namespace_allowed=parts.around.allows_ours(queue.namespace),
            namespace_going=look.namespace_going or parts.around.is_going(queue.namespace),
        )

    def _found(self, queue: DeclaredQueue) -> Found | None:
        namespace = self._parts.around.broker_namespace(queue.namespace)
        return self._parts.mirror.get(namespace, queue.entity)

    async def _read_again(self, queue: DeclaredQueue) -> bool:
        """Read a queue from the broker, and return whether it told; one that does not answer is told to the switch."""
        parts = self._parts
        namespace = parts.around.broker_namespace(queue.namespace)
        try:
            parts.mirror.put(await parts.broker.queue(namespace, queue.entity))
        except errors.EntityNotFound:
            parts.mirror.drop(namespace, queue.entity)
        except LockstepError as error:
            parts.breaker.failed(error)
            return False
        return True

    # --- doing -------------------------------------------------------------------------------------

    async def _carry_out(self, look: QueueLook, decided: Plan) -> bool:
        """Do one thing, and return whether to plan again."""
        match decided.action:
            case Action.ADD_FINALIZER | Action.DROP_FINALIZER:
                return await self._set_finalizer(look, decided)
            case Action.CREATE if self._waits_for_lost(look) or self._exceeds_quota(look):
                return False
            case Action.DELETE if self._waits_for_its_turn(look):
                return False
        try:
            has_changed = await self._call(look, decided)
        except LockstepError as error:
            return await self._refused(look, decided, error)
        look.did = True
        # An update that changed nothing only had not been told yet: its answer, or the status, was lost.
        events = decided.events if has_changed else ()
        if any(one.reason == "DriftCorrected" for one in events):
            look.drift = True
            log.info("queue.drift_corrected", extra={"object": look.queue.key})
        for event in events:
            self._parts.events.tell(look.key, look.body, event)
        return True

    async def _call(self, look: QueueLook, decided: Plan) -> bool:
        """Call the broker, and return whether that changed the queue."""
        parts, queue = self._parts, look.queue
        namespace = parts.around.broker_namespace(queue.namespace)
        keeper = Keeper(queue.key, queue.uid, queue.generation)
        if decided.action is Action.DELETE:
            await self._delete(look, decided, namespace)
            return True
        if decided.action is Action.CREATE:
            self._making.append(namespace)
            try:
                found = await parts.broker.create(namespace, queue.entity, queue.settings, keeper)
            finally:
                self._making.remove(namespace)
        else:
            settings = {k: v for k, v in queue.settings.items() if k not in _FIXED}
            found = await parts.broker.update(
                namespace,
                queue.entity,
                settings,
                keeper,
                take_over=decided.takes_over or look.is_restored,
            )
        has_changed = look.entity is None or look.entity.revision != found.entity.revision
        parts.mirror.put(found)
        policy = effective_policy(queue, self._default_policy)
        look.told |= applied(queue, parts.around.path_of(queue), found.entity, policy)
        if decided.action is Action.CREATE:
            look.told |= counts(Figures(), parts.clock.now_ms())
        look.read(look.body)
        return has_changed

    def _tell_observed(self, look: QueueLook) -> None:
        """Tell how a queue is that is only looked at."""
        queue, entity = look.queue, look.entity
        if queue.observes_only and not (queue.is_going or queue.is_paused) and entity is not None:
            path = self._parts.around.path_of(queue)
            look.told |= applied(queue, path, entity, DeletionPolicy.RETAIN)

    def _waits_for_its_turn(self, look: QueueLook) -> bool:
        """Whether many queues are being deleted, and this one is not the next; then it is decided on anew."""
        kinds = [one.get("type") for one in look.queue.conditions]
        if Kind.DELETION_BLOCKED in kinds:
            return False  # it is tried again; nothing more goes than before
        objects = self._parts.objects.count(QUEUES.kind)
        look.again_ms = self._parts.pace.left_ms(look.queue.uid, objects)
        return look.again_ms > 0

    async def _delete(self, look: QueueLook, decided: Plan, namespace: str) -> None:
        """Delete the queue that was decided on: not another one of its name, and not another one's."""
        parts, queue, entity = self._parts, look.queue, look.entity
        assert entity is not None, "nothing is deleted that is not there"
        try:
            await parts.broker.delete(
                namespace,
                queue.entity,
                uid=entity.uid,
                manager_uid=queue.uid,
                if_empty=decided.if_empty,
            )
        except errors.EntityNotFound:
            log.info("queue.gone_already", extra={"object": queue.key})
        parts.mirror.drop(namespace, queue.entity)

    def _exceeds_quota(self, look: QueueLook) -> bool:
        """Whether the Broker allows no more queues; the object is looked at again when another one goes."""
        parts = self._parts
        namespace = parts.around.broker_namespace(look.queue.namespace)
        most, most_inside = parts.around.quota()
        if most is None and most_inside is None:
            return False
        managed = [one for one in parts.mirror if one.entity.manager_uid]
        inside = sum(1 for one in managed if one.namespace == namespace)
        for what, limit, used in (
            ("maxEntities", most, len(managed) + len(self._making)),
            ("maxEntitiesPerNamespace", most_inside, inside + self._making.count(namespace)),
        ):
            if limit is not None and used >= limit:
                text = (
                    f"The Broker allows {limit} queues (spec.quota.{what}), and there are as many. Delete one, or raise"
                    " the quota."
                )
                look.conditions = not_ready(Reason.QUOTA_EXCEEDED, text)
                return True
        return False

    def _waits_for_lost(self, look: QueueLook) -> bool:
        """Whether a queue that the broker had is not made again yet, because many are gone at once."""
        left_ms = self._parts.mirror.loss_left_ms()
        if not left_ms or not look.queue.status.get("entityId"):
            return False
        look.conditions = not_ready(
            Reason.ENTITY_MISSING,
            "Many queues are gone from the broker at once, as if it had lost its data. They are made again in a few"
            " minutes, unless they come back before.",
        )
        look.is_retried, look.least_ms = True, left_ms
        return True

    async def _set_finalizer(self, look: QueueLook, decided: Plan) -> bool:
        metadata = look.body["metadata"]
        others = [one for one in metadata.get("finalizers") or () if one != FINALIZER]
        adds = decided.action is Action.ADD_FINALIZER
        finalizers = [*others, FINALIZER] if adds else others
        if not adds and look.queue.is_going:
            self._tell_of_the_end(look, decided)
        change = {
            "metadata": {
                "finalizers": finalizers or None,
                "resourceVersion": look.body["metadata"]["resourceVersion"],
            }
        }
        queue = look.queue
        try:
            body = await self._parts.kube.patch(QUEUES, queue.namespace, queue.name, change)
        except KubeError as error:
            if error.is_gone:
                self._parts.objects.drop(look.key, queue.uid)
                return False
            if not error.is_conflict:
                raise
            return await self._read_object(look)
        look.did = True
        # Nobody else changed anything meanwhile, or it would have been refused.
        self._parts.objects.put(look.key, body)
        look.read(body)
        return adds or not queue.is_going

    def _tell_of_the_end(self, look: QueueLook, decided: Plan) -> None:
        """Tell what is told when an object goes; afterwards nobody can."""
        for event in decided.events:
            if event.reason == "Orphaned":
                self._tell_orphan(look, event)
            else:
                self._parts.events.tell(look.key, look.body, event)

    def _tell_orphan(self, look: QueueLook, event: Event) -> None:
        """Tell it of the Broker: nothing can be told in a namespace that goes, and what was told goes with it."""
        parts = self._parts
        log.warning("queue.orphaned", extra={"object": look.queue.key})
        parts.metrics.orphans.labels(QUEUES.kind).inc()
        settings = parts.settings.broker
        key = Key(BROKERS.kind, settings.namespace, settings.name)
        body = parts.objects.get(key)
        if body is not None:
            parts.events.tell(key, body, event, of=look.queue.namespace)

    async def _read_object(self, look: QueueLook) -> bool:
        """Read the object anew, and return whether it is there still."""
        try:
            body = await self._parts.kube.get(QUEUES, look.queue.namespace, look.queue.name)
        except KubeError as error:
            if not error.is_gone:
                raise
            self._parts.objects.drop(look.key, look.queue.uid)
            return False
        if body["metadata"]["uid"] != look.queue.uid:
            return False
        self._parts.objects.learn(look.key, body)
        look.read(body)
        return True

    # --- refusals ----------------------------------------------------------------------------------

    async def _refused(self, look: QueueLook, decided: Plan, error: LockstepError) -> bool:
        """Take an error of the broker, and return whether to plan again."""
        parts, queue = self._parts, look.queue
        if decided.action is Action.DELETE and _is_of_one_queue(error):
            look.conditions, look.is_retried = deletion_waits(str(error)), True
            return False
        parts.breaker.failed(error)
        if parts.breaker.is_open:
            return True
        match error:
            case errors.EntityAlreadyExists() | errors.EntityManaged() | errors.EntityNotFound():
                await self._read_again(queue)
                return True
            case errors.EntityNotEmpty():
                return await self._not_empty(look)
            case errors.RevisionConflict():
                return await self._outdated(look, error)
            case errors.QuotaExceeded():
                look.conditions = not_ready(Reason.QUOTA_EXCEEDED, in_our_names(str(error)))
            case errors.InvalidRequest():
                look.conditions = not_ready(Reason.INVALID_SPEC, in_our_names(str(error)))
            case _:
                look.conditions = not_ready(Reason.RETRYING, str(error))
                look.is_retried = True
        log.info(
            "queue.refused",
            extra={"object": queue.key, "action": decided.action, "reason": error.reason},
        )
        return False

    async def _outdated(self, look: QueueLook, error: LockstepError) -> bool:
        """Read the object anew, of which the broker saw a later generation; return whether to plan again.

        What Kubernetes has now is at least as new as what any operator ever applied, unless Kubernetes was restored
        from a backup. Then the object as it is counts.
        """
        if look.is_restored:
            look.conditions, look.is_retried = not_ready(Reason.RETRYING, str(error)), True
            return False
        was = look.queue.generation
        await self._read_again(look.queue)
        if not await self._read_object(look):
            return False
        if look.queue.generation == was:
            look.is_restored = True
            log.warning("queue.restored", extra={"object": look.queue.key, "error": str(error)})
        return True

    async def _not_empty(self, look: QueueLook) -> bool:
        """Tell what holds the queue, unless its namespace goes; return whether to plan again."""
        look.namespace_going = await self._parts.around.finds_going(look.queue.namespace)
        if look.namespace_going:
            return True
        await self._read_again(look.queue)
        found = self._found(look.queue)
        look.conditions = deletion_blocked(_held(found.figures if found else Figures()))
        look.is_retried, look.least_ms = True, _BLOCKED_LEAST_MS
        event = Event("Warning", "DeletionBlocked", look.conditions[-1].message)
        self._parts.events.tell(look.key, look.body, event)
        return False

    async def _invalid(self, key: Key, body: Body, message: str) -> Result:
        """Tell of an object that says what no broker can do; one on its way out is let go."""
        plain = read_queue({**body, "spec": {"brokerName": _broker_of(body)}})
        look = QueueLook(key, body, plain)
        if plain.is_going and plain.has_finalizer:
            await self._set_finalizer(look, Plan(Action.DROP_FINALIZER))
            return Result(outcome="success")
        look.conditions = not_ready(Reason.INVALID_SPEC, message)
        return await self._tell(look)

    # --- telling -----------------------------------------------------------------------------------

    async def _tell(self, look: QueueLook) -> Result:
        """Write the status if it says something new."""
        parts = self._parts
        result = look.result()
        body = parts.objects.get(look.key)
        if not look.conditions or body is None:
            return result
        for event in _events_of(look.conditions):
            parts.events.tell(look.key, look.body, event)
        stored = look.body.get("status") or {}
        change = changes(look.queue, stored, look.conditions, look.told, parts.clock.now_ms())
        is_older = stored.get("observedGeneration", 0) > look.queue.generation
        if not change or is_older:
            return result
        try:
            newer = await parts.kube.patch(
                QUEUES,
                look.queue.namespace,
                look.queue.name,
                {"status": change},
                subresource="status",
            )
        except KubeError as error:
            if not error.is_gone:
                raise
            parts.objects.drop(look.key, look.queue.uid)
            return Result(outcome="noop")
        parts.objects.learn(look.key, newer)
        return (
            result if look.did or result.outcome != "noop" else replace(result, outcome="success")
        )


def _held(figures: Figures) -> str:
    """Return what a queue holds, in words."""
    parts = [
        f"{number} {what if number == 1 else what + 's'}"
        for number, what in (
            (figures.active, "message"),
            (figures.scheduled, "scheduled message"),
            (figures.dead_letters, "dead letter"),
        )
        if number
    ]
    return f"it holds {', '.join(parts)}" if parts else "it holds states of sessions"


_FIXED = frozenset({"requires_session", "requires_duplicate_detection", "placement"})
_TOLD: dict[Reason, str] = {
    Reason.NAME_CONFLICT: "NameConflict",
    Reason.IMMUTABLE_MISMATCH: "ImmutableMismatch",
    Reason.BROKER_UNAVAILABLE: "BrokerUnavailable",
    Reason.METADATA_STORE_UNAVAILABLE: "BrokerUnavailable",
}


def _events_of(conditions: tuple[Condition, ...]) -> list[Event]:
    return [
        Event("Warning", _TOLD[one.reason], one.message)
        for one in conditions
        if one.kind is Kind.READY and one.status != "True" and one.reason in _TOLD
    ]


def _is_of_one_queue(error: LockstepError) -> bool:
    """Whether a deletion failed because what the queue holds could not be looked at; others may be in order."""
    is_about_all = isinstance(error, errors.ConnectionFailed | errors.ClusterUnavailable)
    return is_unreachable(error) and not is_about_all


def _broker_of(body: Body) -> str:
    return str((body.get("spec") or {}).get("brokerName", "default"))
