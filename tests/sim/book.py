"""What one partition has committed, read from its rows alone.

Here belongs what messages, locks and states there are. Never here: whether a step was allowed (`referee`). It
shares no code with the owner's memory, so that the two can disagree.
"""

from __future__ import annotations

import json
from array import array
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lockstep.core.amendments import Amendment
from lockstep.core.changes import (
    ArrivalRow,
    Change,
    ChunkRow,
    LockRow,
    PartitionRow,
    RequestRow,
    SessionRow,
)
from lockstep.core.entity import QueueDefinition
from lockstep.core.ids import EntityKey, PartitionEpoch
from lockstep.core.jobs import Job
from tests.sim.rows import Place, Spot, Step, Where


@dataclass(slots=True)
class Message:
    """A stored message.

    Attributes:
        session_id: Its session; None = it has none.
        body: Its bytes.
        spot: Where its bytes are.
        enqueued_ms: When it was enqueued, last.
        ttl_ms: How long it lives from then on; 0 = for ever.
        due_ms: When it becomes active; 0 = it is active.
        later_ms: When the delay ends that it was abandoned with; 0 = it has none.
        deliveries: Its count.
        dead: Its place among dead letters; 0 = it is none.
        reason: Why it is one.
        dead_ms: Since when it is one.
        grant: Who has the deferred message in hand, 0 = nobody; None = it is not deferred.
    """

    session_id: str | None
    body: bytes
    spot: Spot
    enqueued_ms: int
    ttl_ms: int = 0
    due_ms: int = 0
    later_ms: int = 0
    deliveries: int = 0
    dead: int = 0
    reason: str = ""
    dead_ms: int = 0
    grant: int | None = None

    def is_over(self, now_ms: int) -> bool:
        """Whether its time to live is over (TTL-2)."""
        return bool(self.ttl_ms) and not self.due_ms and self.enqueued_ms + self.ttl_ms <= now_ms

    @property
    def status(self) -> str:
        """Where it is."""
        store = "dead" if self.dead else "main"
        if self.due_ms:
            return f"{store} scheduled"
        if self.grant is None:
            return f"{store} active"
        return f"{store} deferred{' in hand' if self.grant else ''}"


class Book:
    """One partition as its store has it.

    Attributes:
        number: The partition.
        epoch: Who may write.
        openings: How often it was opened.
        opened_ms: The earliest time, in the partition's own, at which the current owner can have begun.
        opened_at: The simulation's time at that moment.
        graced: Grants that were held when the current owner opened.
        maybe_heard: Of these, the ones whose holder may have called the current owner since.
        heard: Of these, the ones whose holder certainly has.
        told_ms: Until when the current owner has told each grant's holder that it has the lock.
        granted: Which call each grant came from, and the simulation's time of its commit.
        orphans: Calls of this owner whose caller is known to have gone, and since when.
        undone: Calls that were undone as if they had never come; they may come again, and count.
        ended: How each session's grant ended.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.epoch = PartitionEpoch(0, 0, 0)
        self.openings = 0
        self.opened_ms = 0
        self.opened_at = 0.0
        self.graced: set[int] = set()
        self.maybe_heard: set[int] = set()
        self.heard: set[int] = set()
        self.told_ms: dict[int, int] = {}
        self.granted: dict[int, tuple[tuple[str, int], float]] = {}
        self.orphans: dict[tuple[str, int], float] = {}
        self.undone: set[tuple[str, int]] = set()
        self.ended: dict[int, str] = {}
        self.partition = PartitionRow(0, 0, 0)
        self.entities: dict[int, QueueDefinition] = {}
        self.messages: dict[Where, Message] = {}
        self.chunks: dict[int, tuple[int, int]] = {}  # chunk: entity, count
        self.numbers: dict[Spot, int] = {}  # of all and only the stored messages
        self.live: dict[tuple[int, str | None], list[int]] = {}  # active messages, rising
        self.sessions: dict[Place, SessionRow] = {}
        self.states: dict[Place, bytes] = {}
        self.locks: dict[Where, LockRow] = {}
        self.amendments: dict[Where, Amendment] = {}
        self.jobs: dict[Where, Job] = {}
        self.arrivals: dict[Where, ArrivalRow] = {}
        self.last_dead: dict[int, int] = {}
        self.requests: dict[tuple[str, int], RequestRow] = {}
        self.last_sequence: dict[int, int] = {}

    # --- looking ---------------------------------------------------------------------------------

    def number_of(self, entity: EntityKey) -> int | None:
        """Return the number of a queue; None = the partition does not hold it."""
        return next((n for n, d in self.entities.items() if d.key == entity), None)

    def result_of(self, request: tuple[str, int]) -> list[Any]:
        """Return what a call did; begins with its kind, "none" = nothing is known of it."""
        row = self.requests.get(request)
        return json.loads(row.result) if row is not None else ["none"]

    def active(self, entity: int, session_id: str | None) -> list[int]:
        """Return active messages, rising."""
        return self.live.get((entity, session_id), [])

    def hand(self, row: SessionRow | None) -> list[int]:
        """Return the ordinary messages that a session's holder has in hand, rising."""
        if row is None or not row.locked_until_ms:
            return []
        back = set(array("q", row.returned))
        active = self.active(row.entity, row.session_id)
        return [s for s in active if s <= row.cursor and s not in back]

    def deferred_hand(self, row: SessionRow | None) -> list[int]:
        """Return the deferred messages that a session's holder has in hand, rising."""
        if row is None or not row.locked_until_ms:
            return []
        return sorted(
            s
            for (entity, s), m in self.messages.items()
            if entity == row.entity and m.grant == row.grant and not m.dead
        )

    def locked(self, entity: int, grant: int, row: LockRow | None = None) -> dict[int, int]:
        """Return the messages under a grant and the ends of their locks."""
        row = row or self.locks.get((entity, grant))
        if row is None:
            return {}
        pairs = zip(array("q", row.sequences), array("q", row.locked_until_ms), strict=True)
        return {
            s: until
            for s, until in pairs
            if (m := self.messages.get((entity, s))) and bool(m.dead) == bool(row.dead_letter)
        }

    def ready(self, entity: int, *, dead_letter: bool) -> list[int]:
        """Return what receives of a plain store may get, in delivery order, expired messages included."""
        taken = {
            s
            for (number, grant) in self.locks
            if number == entity
            for s in self.locked(entity, grant)
        }
        if not dead_letter:
            active = self.active(entity, None)
            return [s for s in active if s not in taken and not self._is_later(entity, s)]
        dead = [
            (m.dead, s)
            for (number, s), m in self.messages.items()
            if number == entity and m.dead and m.grant is None
        ]
        return [s for _, s in sorted(dead) if s not in taken and not self._is_later(entity, s)]

    def _is_later(self, entity: int, sequence: int) -> bool:
        return bool(self.messages[entity, sequence].later_ms)

    def time_at(self, loop_ms: float) -> float:
        """Return the partition's time at a moment of the simulation under the current owner."""
        return self.opened_ms + loop_ms - self.opened_at

    # --- reading rows ------------------------------------------------------------------------------

    def steps(self, changes: Iterable[Change]) -> Iterator[Step]:
        """Yield the steps of a commit; each must be written before the next is asked for."""
        step = Step()
        for change in changes:
            step.take(change)
            if isinstance(change, PartitionRow):
                self._close(step)
                yield step
                step = Step()

    def _close(self, step: Step) -> None:
        """Take a result that goes alone for what it is: its call was undone as if it had never come."""
        if step.undone and not step.is_pruning:
            (key,) = step.undone
            step.request = self.requests[key]._replace(result='["cancelled"]')
            self.undone.add(key)

    def find_gone(self, step: Step) -> None:
        """Say which messages the step removes, after what it moved has moved."""
        for chunk, places in step.removed:
            entity, count = self.chunks[chunk]
            spots = ((chunk, place) for place in (places if places is not None else range(count)))
            numbers = (self.numbers[spot] for spot in spots if spot in self.numbers)
            step.gone.update((entity, number) for number in numbers)

    # --- writing -----------------------------------------------------------------------------------

    def move(self, step: Step) -> None:
        """Take over what the step enqueued again; it goes ahead of all else that the step did."""
        for row in step.moved:
            entity, _ = self.chunks[row.chunk]
            for at, place in enumerate(range(row.first, row.last + 1)):
                before = (entity, self.numbers[row.chunk, place])
                message = self.messages.pop(before)
                if before[1] in self.active(entity, message.session_id):
                    self._inactive(*before, message)
                after = row.first_sequence + at
                step.renumbered.append((before, (entity, after), message))
                session_id = row.session_id if row.session_id is not None else message.session_id
                self.numbers[row.chunk, place] = after
                self.messages[entity, after] = replace(
                    message,
                    session_id=session_id,
                    enqueued_ms=row.enqueued_ms,
                    due_ms=0,
                    later_ms=0,
                    deliveries=0,
                    dead=0,
                    reason="",
                    dead_ms=0,
                    grant=None,
                )
                self.last_sequence[entity] = max(self.last_sequence[entity], after)
                insort(self.live.setdefault((entity, session_id), []), after)

    def write(self, step: Step) -> None:
        """Take over one step, after `move`."""
        assert step.partition is not None
        self.partition = step.partition
        for row in step.entities:
            self.entities[row.entity] = QueueDefinition.from_fields(json.loads(row.definition))
        self._write_messages(step)
        self._write_changes(step)
        self._write_locks(step)
        for number in step.dropped_entities:
            self._drop_entity(number)
        if step.request is not None:
            self.requests[step.request.client_id, step.request.counter] = step.request

    def _write_messages(self, step: Step) -> None:
        for chunk in step.chunks:
            self._add(chunk)
        for where, count in step.counts.items():
            if where in self.messages:
                self.messages[where].deliveries = count
        for where in step.uncounted:
            if where in self.messages:
                self.messages[where].deliveries = 0
        for where, until_ms in step.delays.items():
            if where in self.messages:
                self.messages[where].later_ms = until_ms or 0
        for where, grant in step.aside.items():
            self._set_aside(where, grant, step)
        self._write_ends(step)

    def _write_changes(self, step: Step) -> None:
        for where, amendment in step.amended.items():
            if amendment is None:
                self.amendments.pop(where, None)
            else:
                self.amendments[where] = amendment
        self.jobs.update(step.jobs)
        self.arrivals.update(step.arrivals)

    def _write_ends(self, step: Step) -> None:
        """Take over what became a dead letter, and what is stored no more."""
        for dead in step.dead:
            message = self.messages[dead.entity, dead.sequence]
            if dead.sequence in self.active(dead.entity, message.session_id):
                self._inactive(dead.entity, dead.sequence, message)
            message.dead, message.reason = dead.position, dead.reason
            message.dead_ms = dead.dead_lettered_ms
            self.last_dead[dead.entity] = dead.position
        for where in step.undead - step.gone:
            if where in self.messages:
                self._put_back(where, step)
        for entity, sequence in step.gone:
            message = self.messages.pop((entity, sequence))
            del self.numbers[message.spot]
            if sequence in self.active(entity, message.session_id):
                self._inactive(entity, sequence, message)

    def _put_back(self, where: Where, step: Step) -> None:
        message, amendment = self.messages[where], step.amended.get(where)
        message.dead, message.reason, message.dead_ms = 0, "", 0
        if amendment is not None and amendment.enqueued_ms:
            message.enqueued_ms = amendment.enqueued_ms
        insort(self.live.setdefault((where[0], message.session_id), []), where[1])

    def _set_aside(self, where: Where, grant: int | None, step: Step) -> None:
        message = self.messages.get(where)
        if message is None:
            return
        if message.grant is None and grant is not None and not message.dead:
            self._inactive(*where, message)
        message.grant = grant
        is_leaving = where in step.gone or any((d.entity, d.sequence) == where for d in step.dead)
        if grant is None and not is_leaving and not message.dead:
            insort(self.live.setdefault((where[0], message.session_id), []), where[1])

    def _write_locks(self, step: Step) -> None:
        self.sessions.update(step.sessions)
        for place in step.forgotten:
            self.sessions.pop(place, None)
        for place, value in step.states.items():
            if value is None:
                self.states.pop(place, None)
            else:
                self.states[place] = value
        for where, lock in step.locks.items():
            if lock is None:
                self.locks.pop(where, None)
            else:
                self.locks[where] = lock

    def _add(self, chunk: ChunkRow) -> None:
        count = len(chunk.messages)
        self.chunks[chunk.chunk] = (chunk.entity, count)
        self.last_sequence[chunk.entity] = chunk.first_sequence + count - 1
        ids: Sequence[str | None] = json.loads(chunk.sessions) if chunk.sessions else [None]
        ids = list(ids) * count if len(ids) == 1 else ids
        ttls = array("q", chunk.ttls) if chunk.ttls else array("q", (0,)) * count
        due_ms = array("q", chunk.due_ms) if chunk.due_ms else array("q", (0,)) * count
        for at, (session_id, body) in enumerate(zip(ids, chunk.messages, strict=True)):
            sequence, spot = chunk.first_sequence + at, (chunk.chunk, at)
            self.messages[chunk.entity, sequence] = Message(
                session_id, body, spot, chunk.enqueued_ms, ttls[at], due_ms[at]
            )
            self.numbers[spot] = sequence
            if not due_ms[at]:
                insort(self.live.setdefault((chunk.entity, session_id), []), sequence)

    def _inactive(self, entity: int, sequence: int, message: Message) -> None:
        self.live[entity, message.session_id].remove(sequence)

    def _drop_entity(self, number: int) -> None:
        self.entities.pop(number, None)
        for where in [w for w in self.messages if w[0] == number]:
            del self.numbers[self.messages.pop(where).spot]
        tables: tuple[dict[Any, Any], ...] = (
            self.live,
            self.sessions,
            self.states,
            self.locks,
            self.amendments,
            self.jobs,
            self.arrivals,
        )
        for table in tables:
            for key in [key for key in table if key[0] == number]:
                del table[key]
