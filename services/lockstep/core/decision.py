"""What one step decides.

Here belongs the seam between the core and its shell (design section 2). Never here: rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.core.ids import EntityNumber, SessionId
from lockstep.core.replies import Reply


@dataclass(frozen=True, slots=True)
class Wake:
    """Waiting receivers that may now be served, all of one entity.

    Attributes:
        entity: The queue.
        session_id: The holder of this session; None = of `dead_letter`, accept-next or plain receivers.
        dead_letter: Receivers of the dead-letter store.
        lost: The session's lock ended: its waiting receive must be told (P-5).
    """

    entity: EntityNumber
    session_id: SessionId | None = None
    dead_letter: bool = False
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """A fact for metrics: something happened `count` times.

    Attributes:
        entity: The queue.
        name: What happened.
        label: Which kind of it.
        count: How often; of a duration, its milliseconds.
        enqueued_ms: When the messages were stored that left the queue with it, rising.
        delivery_counts: Those of the messages that were settled; empty = all 0, None = not measured.
    """

    entity: EntityNumber
    name: str
    label: str = ""
    count: int = 1
    enqueued_ms: Sequence[int] = ()
    delivery_counts: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What one step decided. The shell owes, in this order: commit the changes, then reply, then wake.

    Attributes:
        changes: Become durable all or none, under the owner's epoch.
        reply: Must not leave the process before the commit returned.
        wake: Receivers that may now be served.
        events: For metrics.
    """

    changes: tuple[Any, ...]
    reply: Reply
    wake: tuple[Wake, ...] = ()
    events: tuple[Event, ...] = ()
