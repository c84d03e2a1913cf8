"""Whether what is counted adds up to what there is.

Here belong the equations between counters and figures. Never here: what is counted (`owner.observer`), or the model.
The law: from one look to the next, each message and each lock that is there more or less was counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lockstep.core.decision import Event
from lockstep.core.queue import Queue

_STORED = (("enqueued", "client"), ("enqueued", "resubmitted"), ("enqueued", "moved"))
_GONE = (
    ("settled", "completed"),
    ("received_and_deleted", ""),
    ("schedules_cancelled", ""),
    ("resubmitted", ""),
    ("moved", ""),
    ("purged", ""),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a queue holds."""

    messages: int
    locked_messages: int
    held_sessions: int


class Ledger:
    """The events of one queue since a look at it, and what it held then."""

    def __init__(self, queue: Queue) -> None:
        """Begin with what the queue holds."""
        self._queue = queue
        self._counts: Counter[tuple[str, str]] = Counter()
        self._before = figures_of(queue)

    def note(self, events: Sequence[Event]) -> None:
        """Take what a step counted."""
        for event in events:
            if event.entity == self._queue.number:
                self._counts[event.name, event.label] += event.count

    def is_of(self, queue: Queue) -> bool:
        """Whether this is the queue that the ledger began with; one that was made anew is not."""
        return queue is self._queue

    def check(self) -> None:
        """Check that all that was counted explains all that changed."""
        counts, before = self._counts, self._before
        dropped = counts["expired", ""] - counts["dead_lettered", "expired"]
        expected = Figures(
            messages=before.messages
            + sum(counts[one] for one in _STORED)
            - sum(counts[one] for one in _GONE)
            - dropped,
            locked_messages=before.locked_messages + self._locks("message"),
            held_sessions=before.held_sessions + self._locks("session"),
        )
        assert figures_of(self._queue) == expected, f"counted: {dict(counts)}"

    def _locks(self, kind: str) -> int:
        """Return how many locks were granted and have not ended."""
        ended = sum(
            count
            for (name, label), count in self._counts.items()
            if name == "locks_released" and label.startswith(f"{kind}:")
        )
        return self._counts["locks_granted", kind] - ended


def figures_of(queue: Queue) -> Figures:
    """Return what a queue holds."""
    stores = (queue.main, queue.dead)
    return Figures(
        messages=queue.log.count,
        locked_messages=sum(len(held) for store in stores for held in store.grants.values()),
        held_sessions=queue.held_count,
    )
