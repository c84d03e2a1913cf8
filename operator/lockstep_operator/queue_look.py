"""One look at a Queue object, as far as it went.

Here belongs what a look knows and remembers. Never here: what it does (`queues`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from lockstep_operator.conditions import STALLING, Condition, Kind, Reason
from lockstep_operator.declared import DeclaredQueue, read_queue
from lockstep_operator.looks import Result
from lockstep_operator.objects import Body, Key
from lockstep_operator.plan import Entity


@dataclass(slots=True)
class QueueLook:
    """One look, as far as it went."""

    key: Key
    body: Body
    queue: DeclaredQueue
    told: dict[str, Any] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    is_retried: bool = False
    least_ms: int = 0
    again_ms: int = 0
    did: bool = False
    drift: bool = False
    has_read: bool = False
    entity: Entity | None = None
    """The queue that the last plan was made for."""
    namespace_going: bool = False
    is_restored: bool = False
    """Whether the object is older than what the broker has of it, and is the newest that Kubernetes has."""

    def read(self, body: Body) -> None:
        """Go on with a newer state of the object."""
        queue = read_queue(body)
        self.body = body
        self.queue = replace(queue, status={**queue.status, **self.told})

    def result(self) -> Result:
        """Return how the look ended."""
        ready = next((one for one in self.conditions if one.kind is Kind.READY), None)
        is_ready = ready is not None and ready.status == "True"
        outcome = "success" if self.did else "noop"
        if ready is not None and ready.reason is Reason.NAME_CONFLICT:
            outcome = "conflict"
        elif ready is not None and ready.reason in STALLING:
            outcome = "stalled"
        elif self.is_retried:
            outcome = "retry"
        return Result(
            outcome=outcome,
            is_retried=self.is_retried,
            least_ms=self.least_ms,
            again_ms=self.again_ms,
            is_ready=is_ready,
            drift=self.drift,
        )
