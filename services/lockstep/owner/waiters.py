"""Calls that wait: accepts without a session to hand out, receives without a message.

Here belong the queues of waiting calls and their times. Never here: what a call gets. The laws: waiting
costs nothing until something happens; those who wait for the same thing are served in the order they came
(SES-14).
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from typing import NamedTuple

from lockstep.cluster.port import Answer
from lockstep.core.commands import Command
from lockstep.core.decision import Wake
from lockstep.core.ids import SessionId
from lockstep.core.replies import Reply

_HEAP_SLACK = 256


class Place(NamedTuple):
    """What a call waits for: a session of a queue, or (None) whatever the queue or its dead letters have."""

    entity: int
    session_id: SessionId | None = None
    dead_letter: bool = False


class Call:
    """One call of the partition, from its arrival to its answer.

    Attributes:
        command: What to do.
        answer: Where the answer goes; None = nobody waits for it.
        deadline_ms: Until when it may wait, in the partition's time; 0 = not at all.
        refresh_every_ms: How often it is tried again while it waits, to keep a session's lock alive; 0 = never.
        reply: What its last try gave.
        state: The session state that the reply carries, or the key of one that is being read.
        bytes: The memory that its command takes, about.
        arrived_ms: When it came, in the partition's time.
        asks_only: Whether its caller goes on asking, so that it is not noted that it found nothing.
        look_at_ms: When it is looked at again while it waits.
    """

    __slots__ = (
        "answer",
        "arrived_ms",
        "asks_only",
        "bytes",
        "command",
        "deadline_ms",
        "look_at_ms",
        "place",
        "refresh_every_ms",
        "reply",
        "state",
        "timer",
    )

    def __init__(
        self,
        command: Command,
        answer: asyncio.Future[Answer] | None,
        deadline_ms: int,
        size_bytes: int,
        arrived_ms: int,
        *,
        asks_only: bool = False,
    ) -> None:
        self.command = command
        self.answer = answer
        self.deadline_ms = deadline_ms
        self.refresh_every_ms = 0
        self.look_at_ms = 0
        self.reply: Reply | None = None
        self.state: tuple[int, str] | bytes | None = None
        self.timer = 0  # the one that counts; those of earlier parkings mean nothing
        self.bytes = size_bytes
        self.arrived_ms = arrived_ms
        self.asks_only = asks_only
        self.place: Place | None = None

    @property
    def is_abandoned(self) -> bool:
        """Whether the caller has gone."""
        return self.answer is not None and self.answer.done()


class _Timer(NamedTuple):
    at_ms: int
    order: int
    call: Call


class Waiters:
    """All waiting calls of one partition."""

    __slots__ = ("_by_entity", "_heap", "_order", "_queues", "_total")

    def __init__(self) -> None:
        self._queues: dict[Place, OrderedDict[Call, None]] = {}
        self._heap: list[_Timer] = []
        self._order = 0
        self._total = 0
        self._by_entity: dict[int, int] = {}

    def count(self, entity: int) -> int:
        """Return how many calls wait on an entity."""
        return self._by_entity.get(entity, 0)

    def count_free(self, entity: int) -> int:
        """Return how many calls wait for whatever a queue has, or for a session of it."""
        places = (place for place in self._queues if place.entity == entity)
        return sum(
            len(self._queues[place])
            for place in places
            if place.session_id is None and not place.dead_letter
        )

    def __len__(self) -> int:
        """How many calls wait."""
        return self._total

    @property
    def next_ms(self) -> int | None:
        """When the next call must be looked at; None = no call waits."""
        return self._heap[0].at_ms if self._heap else None

    def park(self, call: Call, place: Place, now_ms: int) -> None:
        """Let a call wait; one that waits there already keeps its place in the order."""
        if (
            call.place is not None and call.place != place
        ):  # its queue was replaced by one of the same name
            self.leave(call)
        if call.place is None:
            call.place = place
            self._queues.setdefault(place, OrderedDict())[call] = None
            self._add(place.entity, 1)
        at_ms = call.deadline_ms
        if call.refresh_every_ms:
            at_ms = min(at_ms, now_ms + call.refresh_every_ms)
        self._order += 1
        call.look_at_ms = at_ms
        call.timer = self._order
        heapq.heappush(self._heap, _Timer(at_ms, self._order, call))
        if len(self._heap) > 2 * len(self) + _HEAP_SLACK:
            self._heap = [
                timer
                for timer in self._heap
                if timer.call.place is not None and timer.call.timer == timer.order
            ]
            heapq.heapify(self._heap)

    def leave(self, call: Call) -> None:
        """Let a call wait no more, if it did."""
        if call.place is None:
            return
        queue = self._queues[call.place]
        del queue[call]
        if not queue:
            del self._queues[call.place]
        self._add(call.place.entity, -1)
        call.place = None

    def _add(self, entity: int, change: int) -> None:
        self._total += change
        left = self._by_entity.get(entity, 0) + change
        if left:
            self._by_entity[entity] = left
        else:
            del self._by_entity[entity]

    def due(self, now_ms: int) -> list[Call]:
        """Return the waiting calls whose time has come; they still wait."""
        due = []
        while self._heap and self._heap[0].at_ms <= now_ms:
            timer = heapq.heappop(self._heap)
            if timer.call.place is not None and timer.call.timer == timer.order:
                due.append(timer.call)
        return due

    def places(self, wake: Wake) -> list[Place]:
        """Return where calls wait that a wake concerns."""
        if wake.lost and wake.session_id is None:
            return [place for place in self._queues if place.entity == wake.entity]
        place = Place(wake.entity, wake.session_id, wake.dead_letter)
        return [place] if place in self._queues else []

    def first(self, place: Place) -> Call | None:
        """Return who waits longest at a place; None = nobody."""
        queue = self._queues.get(place)
        return next(iter(queue)) if queue else None

    def all(self) -> list[Call]:
        """Return every waiting call."""
        return [call for queue in self._queues.values() for call in queue]
