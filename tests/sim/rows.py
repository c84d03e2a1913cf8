"""What one step has written, sorted out.

Here belongs the way from the rows of a commit to steps. Never here: what a partition holds (`book`), or whether
it was allowed (`referee`). A new kind of row that a rule needs gets a field here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lockstep.core.amendments import Amendment
from lockstep.core.changes import (
    AmendmentRow,
    ArrivalRow,
    Change,
    ChunkRow,
    ClientRow,
    CountRow,
    DeadLetterRow,
    DeferredRow,
    DelayRow,
    Drop,
    DropEntity,
    EntityRow,
    GoneRow,
    JobRow,
    LockRow,
    MovedRow,
    PartitionRow,
    RequestRow,
    SessionRow,
    StateRow,
)
from lockstep.core.jobs import Job

if TYPE_CHECKING:
    from tests.sim.book import Message

Where = tuple[int, int]  # an entity and a sequence number
Place = tuple[int, str]  # an entity and a session
Spot = tuple[int, int]  # a chunk and a place in it


@dataclass(slots=True)
class Step:
    """The rows of one step.

    Attributes:
        now_ms: The partition's time.
        chunks: What was stored.
        moved: What was enqueued again.
        amended: What is changed about messages from now on; None = nothing.
        uncounted: The messages whose delivery counts were dropped.
        removed: What is stored no more: chunks, and the places in them (None = all that is left).
        counts: The delivery counts that were written.
        dead: What became a dead letter.
        undead: What is a dead letter no more.
        jobs: How jobs stand from now on, by queue and number.
        arrivals: What was said of transfers from other partitions, by the queue and the partition that they came from.
        aside: What was deferred, and who has it in hand (0 = nobody); None = it is deferred no more.
        delays: When the delays of messages end (ADD-6); None = they have ended.
        sessions: The sessions that were written, each as the step left it.
        forgotten: The sessions that were dropped.
        states: The states that were written.
        locks: The locks of plain messages that were written.
        request: The call that took effect.
        entities: The definitions that were applied.
        dropped_entities: The queues that are no more.
        partition: The numbers and the time.
        undone: Calls whose results were dropped.
        is_pruning: Whether they were dropped because of their age.
        gone: The messages that are stored no more, by their numbers; `Book.find_gone` fills it.
        renumbered: Each message that was enqueued again: its old number, its new one, and what it was; `Book.move`
            fills it.
    """

    now_ms: int = 0
    chunks: list[ChunkRow] = field(default_factory=list)
    moved: list[MovedRow] = field(default_factory=list)
    amended: dict[Where, Amendment | None] = field(default_factory=dict)
    uncounted: set[Where] = field(default_factory=set)
    removed: list[tuple[int, range | None]] = field(default_factory=list)
    counts: dict[Where, int] = field(default_factory=dict)
    dead: list[DeadLetterRow] = field(default_factory=list)
    undead: set[Where] = field(default_factory=set)
    jobs: dict[Where, Job] = field(default_factory=dict)
    arrivals: dict[Where, ArrivalRow] = field(default_factory=dict)
    aside: dict[Where, int | None] = field(default_factory=dict)
    delays: dict[Where, int | None] = field(default_factory=dict)
    sessions: dict[Place, SessionRow] = field(default_factory=dict)
    forgotten: list[Place] = field(default_factory=list)
    states: dict[Place, bytes | None] = field(default_factory=dict)
    locks: dict[Where, LockRow | None] = field(default_factory=dict)
    request: RequestRow | None = None
    entities: list[EntityRow] = field(default_factory=list)
    dropped_entities: list[int] = field(default_factory=list)
    partition: PartitionRow | None = None
    undone: list[tuple[str, int]] = field(default_factory=list)
    is_pruning: bool = False
    gone: set[Where] = field(default_factory=set)
    renumbered: list[tuple[Where, Where, Message]] = field(default_factory=list)

    def take(self, change: Change) -> None:
        """Sort out one row."""
        match change:
            case PartitionRow():
                self.partition, self.now_ms = change, change.last_time_ms
            case ChunkRow():
                self.chunks.append(change)
            case MovedRow():
                self.moved.append(change)
            case GoneRow(chunk, first, last):
                self.removed.append((chunk, range(first, last + 1)))
            case CountRow(entity, sequence, deliveries):
                self.counts[entity, sequence] = deliveries
            case DeadLetterRow():
                self.dead.append(change)
            case DeferredRow(entity, sequence, grant):
                self.aside[entity, sequence] = grant
            case Drop(table, key):
                self._take_drop(table, key)
            case _:
                self._take_other(change)

    def _take_other(self, change: Change) -> None:
        match change:
            case SessionRow(entity, session_id):
                self.sessions[entity, session_id] = change
            case DelayRow(entity, sequence, until_ms):
                self.delays[entity, sequence] = until_ms
            case StateRow(entity, session_id, _, value):
                self.states[entity, session_id] = value
            case LockRow(entity, grant):
                self.locks[entity, grant] = change
            case RequestRow():
                self.request = change
            case ClientRow():
                self.is_pruning = True
            case EntityRow():
                self.entities.append(change)
            case _:
                self._take_rare(change)

    def _take_rare(self, change: Change) -> None:
        match change:
            case AmendmentRow(entity, sequence, text):
                self.amended[entity, sequence] = Amendment.from_text(text)
            case JobRow(entity, number, text):
                self.jobs[entity, number] = Job.from_text(text)
            case ArrivalRow(entity, source):
                self.arrivals[entity, source] = change
            case DropEntity(entity):
                self.dropped_entities.append(entity)
            case _:
                pass

    def _take_drop(self, table: type, key: tuple[int | str, ...]) -> None:
        singles: dict[type, dict[Where, Any]] = {
            AmendmentRow: self.amended,
            DeferredRow: self.aside,
            DelayRow: self.delays,
            LockRow: self.locks,
        }
        sets: dict[type, set[Where]] = {CountRow: self.uncounted, DeadLetterRow: self.undead}
        if table in singles:
            singles[table][int(key[0]), int(key[1])] = None
        elif table is ChunkRow:
            self.removed.append((int(key[0]), None))
        elif table in sets:
            sets[table].add((int(key[0]), int(key[1])))
        elif table is SessionRow:
            self.forgotten.append((int(key[0]), str(key[1])))
        elif table is StateRow:
            self.states[int(key[0]), str(key[1])] = None
        elif table is RequestRow:
            self.undone.append((str(key[0]), int(key[1])))
        elif table is ClientRow:
            self.is_pruning = True
