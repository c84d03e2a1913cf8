"""What one partition has committed, read from its rows alone.

Here belongs the way from rows to messages, locks and states. Never here: whether a step was allowed
(`referee`). It shares no code with the owner's memory, so that the two can disagree.
"""

from __future__ import annotations

import json
from array import array
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lockstep.core.changes import (
    Change,
    ChunkRow,
    ClientRow,
    CountRow,
    DeadLetterRow,
    Drop,
    DropEntity,
    EntityRow,
    GoneRow,
    LockRow,
    PartitionRow,
    RequestRow,
    SessionRow,
    StateRow,
)
from lockstep.core.entity import QueueDefinition
from lockstep.core.ids import EntityKey, PartitionEpoch

Where = tuple[int, int]  # an entity and a sequence number
Place = tuple[int, str]  # an entity and a session


@dataclass(slots=True)
class Message:
    """A stored message."""

    session_id: str | None
    body: bytes
    chunk: int
    deliveries: int = 0
    dead: int = 0  # its place among dead letters; 0 = it is none


@dataclass(slots=True)
class Step:
    """The rows of one step, sorted out. `gone` are the messages that are stored no more after it."""

    now_ms: int = 0
    chunks: list[ChunkRow] = field(default_factory=list)
    gone: set[Where] = field(default_factory=set)
    counts: list[CountRow] = field(default_factory=list)
    dead: list[DeadLetterRow] = field(default_factory=list)
    sessions: list[SessionRow] = field(default_factory=list)
    forgotten: list[Place] = field(default_factory=list)
    states: dict[Place, bytes | None] = field(default_factory=dict)
    locks: dict[Where, LockRow | None] = field(default_factory=dict)
    request: RequestRow | None = None
    entities: list[EntityRow] = field(default_factory=list)
    dropped_entities: list[int] = field(default_factory=list)
    partition: PartitionRow | None = None
    undone: list[tuple[str, int]] = field(default_factory=list)
    is_pruning: bool = False

    def close(self) -> None:
        """Take a result that goes alone for what it is: its call was undone as if it had never come."""
        if self.undone and not self.is_pruning:
            (key,) = self.undone
            self.request = RequestRow(*key, 0, '["cancelled"]')


class Book:
    """One partition as its store has it.

    Attributes:
        epoch: Who may write.
        openings: How often it was opened.
        opened_ms: The earliest time, in the partition's own, at which the current owner can have begun.
        graced: Grants that were held when the current owner opened.
        maybe_heard: Of these, the ones whose holder may have called the current owner since.
        heard: Of these, the ones whose holder certainly has.
        told_ms: Until when the current owner has told each grant's holder that it has the lock.
    """

    def __init__(self) -> None:
        self.epoch = PartitionEpoch(0, 0, 0)
        self.openings = 0
        self.opened_ms = 0
        self.graced: set[int] = set()
        self.maybe_heard: set[int] = set()
        self.heard: set[int] = set()
        self.told_ms: dict[int, int] = {}
        self.partition = PartitionRow(0, 0, 0)
        self.entities: dict[int, QueueDefinition] = {}
        self.messages: dict[Where, Message] = {}
        self.chunks: dict[int, tuple[int, int, int]] = {}  # chunk: entity, first number, count
        self.live: dict[tuple[int, str | None], list[int]] = {}  # active messages, rising
        self.sessions: dict[Place, SessionRow] = {}
        self.states: dict[Place, bytes] = {}
        self.locks: dict[Where, LockRow] = {}
        self.requests: dict[tuple[str, int], str] = {}
        self.last_sequence: dict[int, int] = {}

    # --- looking ---------------------------------------------------------------------------------

    def number_of(self, entity: EntityKey) -> int | None:
        """Return the number of a queue; None = the partition does not hold it."""
        return next((n for n, d in self.entities.items() if d.key == entity), None)

    def active(self, entity: int, session_id: str | None) -> list[int]:
        """Return active messages, rising."""
        return self.live.get((entity, session_id), [])

    def hand(self, row: SessionRow | None) -> list[int]:
        """Return what a session's holder has in hand, rising."""
        if row is None or not row.locked_until_ms:
            return []
        back = set(array("q", row.returned))
        active = self.active(row.entity, row.session_id)
        return [s for s in active if s <= row.cursor and s not in back]

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
        """Return what receives of a plain store may get, in delivery order."""
        taken = {
            s
            for (number, grant) in self.locks
            if number == entity
            for s in self.locked(entity, grant)
        }
        if not dead_letter:
            return [s for s in self.active(entity, None) if s not in taken]
        dead = [
            (m.dead, s) for (number, s), m in self.messages.items() if number == entity and m.dead
        ]
        return [s for _, s in sorted(dead) if s not in taken]

    # --- reading rows ------------------------------------------------------------------------------

    def steps(self, changes: Iterable[Change]) -> Iterable[Step]:
        """Yield the steps of a commit; each must be written before the next is asked for."""
        step = Step()
        for change in changes:
            self._sort_out(change, step)
            if isinstance(change, PartitionRow):
                step.close()
                yield step
                step = Step()

    def _sort_out(self, change: Change, step: Step) -> None:
        match change:
            case PartitionRow():
                step.partition, step.now_ms = change, change.last_time_ms
            case GoneRow(chunk, first, last):
                self._note_gone(chunk, range(first, last + 1), step)
            case StateRow(entity, session_id, _, value):
                step.states[entity, session_id] = value
            case LockRow(entity, grant):
                step.locks[entity, grant] = change
            case ClientRow():
                step.is_pruning = True
            case DropEntity(entity):
                step.dropped_entities.append(entity)
            case Drop(table, key):
                self._sort_out_drop(table, key, step)
            case _:
                _collect(change, step)

    def _sort_out_drop(self, table: type, key: tuple[int | str, ...], step: Step) -> None:
        if table is ChunkRow:
            _, _, count = self.chunks[int(key[0])]
            self._note_gone(int(key[0]), range(count), step)
        elif table is SessionRow:
            step.forgotten.append((int(key[0]), str(key[1])))
        elif table is StateRow:
            step.states[int(key[0]), str(key[1])] = None
        elif table is LockRow:
            step.locks[int(key[0]), int(key[1])] = None
        elif table is RequestRow:
            step.undone.append((str(key[0]), int(key[1])))
        elif table is ClientRow:
            step.is_pruning = True

    def _note_gone(self, chunk: int, places: Iterable[int], step: Step) -> None:
        entity, first, _ = self.chunks[chunk]
        wheres = ((entity, first + place) for place in places)
        step.gone.update(where for where in wheres if where in self.messages)

    # --- writing -----------------------------------------------------------------------------------

    def write(self, step: Step) -> None:
        """Take over one step."""
        assert step.partition is not None
        self.partition = step.partition
        for row in step.entities:
            self.entities[row.entity] = QueueDefinition.from_fields(json.loads(row.definition))
        for chunk in step.chunks:
            self._add(chunk)
        for count in step.counts:
            if (entity_message := self.messages.get((count.entity, count.sequence))) is not None:
                entity_message.deliveries = count.deliveries
        for dead in step.dead:
            message = self.messages[dead.entity, dead.sequence]
            self._inactive(dead.entity, dead.sequence, message)
            message.dead = dead.position
        for entity, sequence in step.gone:
            message = self.messages.pop((entity, sequence))
            if not message.dead:
                self._inactive(entity, sequence, message)
        self._write_locks(step)
        for number in step.dropped_entities:
            self._drop_entity(number)
        if step.request is not None:
            key = (step.request.client_id, step.request.counter)
            self.requests[key] = step.request.result

    def _write_locks(self, step: Step) -> None:
        for session in step.sessions:
            self.sessions[session.entity, session.session_id] = session
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
        self.chunks[chunk.chunk] = (chunk.entity, chunk.first_sequence, count)
        self.last_sequence[chunk.entity] = chunk.first_sequence + count - 1
        ids: Sequence[str | None] = json.loads(chunk.sessions) if chunk.sessions else [None]
        ids = list(ids) * count if len(ids) == 1 else ids
        for at, (session_id, body) in enumerate(zip(ids, chunk.messages, strict=True)):
            sequence = chunk.first_sequence + at
            self.messages[chunk.entity, sequence] = Message(session_id, body, chunk.chunk)
            insort(self.live.setdefault((chunk.entity, session_id), []), sequence)

    def _inactive(self, entity: int, sequence: int, message: Message) -> None:
        self.live[entity, message.session_id].remove(sequence)

    def _drop_entity(self, number: int) -> None:
        self.entities.pop(number, None)
        for where in [w for w in self.messages if w[0] == number]:
            del self.messages[where]
        tables: tuple[dict[Any, Any], ...] = (self.live, self.sessions, self.states, self.locks)
        for table in tables:
            for key in [k for k in table if k[0] == number]:
                del table[key]


def _collect(row: Change, step: Step) -> None:
    match row:
        case ChunkRow():
            step.chunks.append(row)
        case CountRow():
            step.counts.append(row)
        case DeadLetterRow():
            step.dead.append(row)
        case SessionRow():
            step.sessions.append(row)
        case EntityRow():
            step.entities.append(row)
        case RequestRow():
            step.request = row
        case _:
            pass
