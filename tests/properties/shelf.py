"""The model of messages that are locked one by one: a plain queue, or a dead-letter store.

A list in the order in which messages are handed out, and for each receive what it still locks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lockstep.core.commands import Outcome

Message = dict[str, Any]


class Shelf:
    """Messages in their order; a message under no lock is ready."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.locks: dict[int, dict[int, int]] = {}  # grant → sequence → when its lock ends
        self.unheard: set[int] = set()  # grants that an outage met, their holder silent since

    def find(self, sequence: int) -> Message:
        """Return a message that is here."""
        return next(m for m in self.messages if m["sequence"] == sequence)

    def locked(self) -> set[int]:
        """All locked messages."""
        return {sequence for held in self.locks.values() for sequence in held}

    def ready(self) -> list[Message]:
        """What receives would get, in order."""
        locked = self.locked()
        return [m for m in self.messages if m["sequence"] not in locked]

    def lock(self, messages: Iterable[Message], grant: int, until_ms: int) -> None:
        """Put messages under a new grant."""
        self.locks[grant] = {m["sequence"]: until_ms for m in messages}

    def is_locked(self, grant: int, sequence: int) -> bool:
        """Whether the grant locks the message."""
        return sequence in self.locks.get(grant, {})

    def unlock(self, grant: int, sequence: int) -> Message:
        """Take a message from its grant."""
        held = self.locks[grant]
        del held[sequence]
        if not held:
            del self.locks[grant]
            self.unheard.discard(grant)
        return self.find(sequence)

    def remove(self, sequence: int) -> Message:
        """Take a message away."""
        message = self.find(sequence)
        self.messages.remove(message)
        return message

    def hear(self, grant: int) -> None:
        """The holder of a grant did something under it."""
        self.unheard.discard(grant)

    def renew(self, grant: int, sequence: int, until_ms: int) -> None:
        """Move the end of a lock, never backwards."""
        held = self.locks[grant]
        held[sequence] = max(held[sequence], until_ms)

    def due(self, now_ms: int) -> list[tuple[int, int]]:
        """All (grant, sequence) whose lock has ended."""
        return [
            (grant, sequence)
            for grant, held in self.locks.items()
            for sequence, until_ms in held.items()
            if until_ms <= now_ms
        ]

    def reopen(self, grace_until_ms: int) -> None:
        """Every lock outlives an outage by the grace."""
        for grant, held in self.locks.items():
            self.unheard.add(grant)
            for sequence, until_ms in held.items():
                held[sequence] = max(until_ms, grace_until_ms)

    def view(self) -> dict[str, Any]:
        """What can be compared with a partition."""
        return {
            "ready": [m["sequence"] for m in self.ready()],
            "locks": {grant: dict(held) for grant, held in self.locks.items()},
        }


def counts_as_failure(outcome: Outcome) -> bool:
    """Whether a settlement adds 1 to the delivery count (DCN-2, DCN-3)."""
    return outcome is Outcome.ABANDON
