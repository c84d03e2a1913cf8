"""Queue objects as Kubernetes stores them, and a broker of one queue, for the tests of what is planned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lockstep_operator.declared import FINALIZER, DeclaredQueue, DeletionPolicy, read_queue
from lockstep_operator.plan import Action, Entity, Plan, Seen, plan

DEFAULTS: dict[str, Any] = {
    "requires_session": False,
    "requires_duplicate_detection": False,
    "placement": "single",
    "max_delivery_count": 10,
}


def body(
    name: str = "orders", *, uid: str = "uid-a", created: str = "2026-01-01T00:00:00Z", **spec: Any
) -> dict[str, Any]:
    """Return a new object."""
    return {
        "metadata": {
            "namespace": "shop",
            "name": name,
            "uid": uid,
            "generation": 1,
            "resourceVersion": "1",
            "creationTimestamp": created,
        },
        "spec": spec,
    }


@dataclass
class World:
    """One object, and what the broker has of its queue; `carry_out` does what was planned.

    Attributes:
        stored: The object.
        entity: The queue.
        is_empty: Whether a deletion that needs it finds it empty.
        rival: Another object that declares the queue.
        done: What was done, in order.
        is_gone: Whether the object is gone.
    """

    stored: dict[str, Any]
    entity: Entity | None = None
    is_empty: bool = True
    rival: DeclaredQueue | None = None
    done: list[Plan] = field(default_factory=list)
    is_gone: bool = False
    creations: int = 0

    @property
    def queue(self) -> DeclaredQueue:
        """What the object declares."""
        return read_queue(self.stored)

    def seen(self, **others: Any) -> Seen:
        """What is known beside the object."""
        return Seen(entity=self.entity, rival=self.rival, **others)

    def settle(
        self, default: DeletionPolicy = DeletionPolicy.DELETE_IF_EMPTY, **others: Any
    ) -> Plan:
        """Do what is planned until nothing is, and return that last plan."""
        for _ in range(6):
            decided = plan(self.queue, self.seen(**others), default)
            if decided.action is Action.NOTHING or self.is_gone:
                return decided
            self.done.append(decided)
            if not self.carry_out(decided):
                return decided
        raise AssertionError(f"it does not come to rest: {self.done}")

    def carry_out(self, decided: Plan) -> bool:
        """Do one thing, and return whether it succeeded."""
        queue = self.queue
        finalizers = self.stored["metadata"].setdefault("finalizers", [])
        match decided.action:
            case Action.ADD_FINALIZER:
                finalizers.append(FINALIZER)
            case Action.DROP_FINALIZER:
                finalizers.remove(FINALIZER)
                self.is_gone = queue.is_going
            case Action.CREATE:
                assert self.entity is None
                self.creations += 1
                self.entity = Entity(
                    f"entity-{self.creations}",
                    self.creations,
                    {**DEFAULTS, **queue.settings},
                    queue.uid,
                    queue.key,
                    1,
                )
                self._applied()
            case Action.UPDATE:
                assert self.entity is not None
                self.entity = Entity(
                    self.entity.uid,
                    self.entity.revision + 1,
                    {**DEFAULTS, **queue.settings},
                    queue.uid,
                    queue.key,
                    queue.generation,
                )
                self._applied()
            case Action.DELETE:
                if decided.if_empty and not self.is_empty:
                    return False
                self.entity = None
            case Action.NOTHING:
                pass
        return True

    def _applied(self) -> None:
        assert self.entity is not None
        queue = self.queue
        self.entity = Entity(
            self.entity.uid,
            self.entity.revision,
            self.entity.settings,
            queue.uid,
            queue.key,
            queue.generation,
        )
        self.stored["status"] = {
            "observedGeneration": queue.generation,
            "entityId": self.entity.uid,
            "entityRevision": self.entity.revision,
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "Reconciled", "message": "x"}
            ],
        }

    @property
    def actions(self) -> list[Action]:
        """What was done, by name."""
        return [one.action for one in self.done]
