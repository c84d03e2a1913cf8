"""One heap for everything that happens by time.

Here belongs when to look again. Never here: what happens then (`partition`). The law: an entry may be
early but never late; whoever is woken checks whether the time has really come, and says when to look
again. So a renewal costs nothing.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple


class Subject(NamedTuple):
    """What to look at: its kind, the queue (0 = none), a session or client ("" = none), the grant (0 = none)."""

    kind: str
    entity: int
    name: str = ""
    grant: int = 0


class Deadline(NamedTuple):
    """Look at `subject` at `at_ms`. The order number keeps equal times in the order they were set."""

    at_ms: int
    order: int
    subject: Subject


class DeadlineHeap:
    """Times to look again, earliest first."""

    __slots__ = ("_heap", "_once", "_order")

    def __init__(self) -> None:
        self._heap: list[Deadline] = []
        self._order = 0
        self._once: set[Subject] = set()

    def __len__(self) -> int:
        """How many times to look again there are."""
        return len(self._heap)

    def add(self, at_ms: int, subject: Subject) -> None:
        """Look at a subject at a time."""
        self._order += 1
        heapq.heappush(self._heap, Deadline(at_ms, self._order, subject))

    def add_once(self, at_ms: int, subject: Subject) -> None:
        """Look at a subject at a time, unless it waits for one already that was added so."""
        if subject not in self._once:
            self._once.add(subject)
            self.add(at_ms, subject)

    @property
    def next_ms(self) -> int | None:
        """The earliest time; None = nothing to wait for."""
        return self._heap[0].at_ms if self._heap else None

    def pop_due(self, now_ms: int, subjects_max: int = 0) -> list[Subject]:
        """Take out the subjects whose time has come, earliest first; at most so many, 0 = all."""
        due: list[Subject] = []
        while self._heap and self._heap[0].at_ms <= now_ms:
            if len(due) == subjects_max > 0:
                break
            due.append(heapq.heappop(self._heap).subject)
        self._once.difference_update(due)
        return due
