"""How a partition comes back from storage.

Here belongs the way from stored rows to a partition. Never here: how rows are read (`storage`). The
laws: what was committed is all there is; an outage alone ends no lock, counts no delivery and lets no
second holder in (ADD-4); time does not go back (design law 2); in which order a store gives its rows
makes no difference.
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lockstep.core.changes import (
    CatalogueRow,
    ChunkRow,
    ClientRow,
    CounterRow,
    CountRow,
    DeadLetterRow,
    DeferredRow,
    DuplicatesRow,
    EntityRow,
    GoneRow,
    LockRow,
    MovedRow,
    PartitionRow,
    RequestRow,
    SessionRow,
    StateRow,
)
from lockstep.core.deadlines import Subject
from lockstep.core.duplicates import restore_ids
from lockstep.core.entity import QueueDefinition
from lockstep.core.expiring import earliest
from lockstep.core.ids import ChunkId, GrantNumber, PartitionId, SessionId
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.queue import Deferred, Queue, Step
from lockstep.core.replies import DeadLetterInfo
from lockstep.core.scheduling import schedule
from lockstep.core.session import Session


@dataclass(slots=True)
class Snapshot:
    """All rows of a partition, chunks without their messages (`messages` is empty) in rising order of chunk."""

    partition: PartitionRow = field(default_factory=lambda: PartitionRow(0, 0, 0))
    entities: Sequence[EntityRow] = field(default_factory=list)
    catalogue: Sequence[CatalogueRow] = field(default_factory=list)
    counters: Sequence[CounterRow] = field(default_factory=list)
    chunks: Iterable[ChunkRow] = field(default_factory=list)
    gone: Iterable[GoneRow] = field(default_factory=list)
    moved: Iterable[MovedRow] = field(default_factory=list)
    sessions: Iterable[SessionRow] = field(default_factory=list)
    states: Iterable[StateRow] = field(default_factory=list)
    locks: Iterable[LockRow] = field(default_factory=list)
    counts: Iterable[CountRow] = field(default_factory=list)
    dead_letters: Iterable[DeadLetterRow] = field(default_factory=list)
    deferred: Iterable[DeferredRow] = field(default_factory=list)
    duplicates: Sequence[DuplicatesRow] = field(default_factory=list)
    requests: Iterable[RequestRow] = field(default_factory=list)
    clients: Iterable[ClientRow] = field(default_factory=list)


def restore_partition(
    partition: PartitionId, limits: Limits, snapshot: Snapshot, now_ms: int
) -> Partition:
    """Return the partition that a snapshot describes.

    Args:
        partition: Its number.
        limits: The installation's limits.
        snapshot: What storage holds.
        now_ms: The time of day; at least `snapshot.partition.last_time_ms`.
    """
    restored = Partition(partition, limits, now_ms=now_ms)
    restored.last_chunk = ChunkId(snapshot.partition.last_chunk)
    restored.last_grant = GrantNumber(snapshot.partition.last_grant)
    restored.losses.forget_up_to(snapshot.partition.last_grant)
    restored.last_revision = snapshot.partition.last_revision
    if restored.catalogue is not None:
        restored.catalogue.restore(snapshot.catalogue)
    for row in sorted(snapshot.entities):
        definition = QueueDefinition.from_fields(json.loads(row.definition))
        restored.add_queue(Queue(definition, restored.sequence_base(), restored.totals))
    queues = restored.queues_by_number
    for counter in snapshot.counters:
        queues[counter.entity].log.last_sequence = counter.last_sequence
        queues[counter.entity].last_dead_letter = counter.last_dead_letter
    for count in snapshot.counts:
        queues[count.entity].counts[count.sequence] = count.deliveries
    _restore_dead_letters(restored, snapshot)
    for deferred in snapshot.deferred:
        queues[deferred.entity].deferred[deferred.sequence] = Deferred(None, deferred.grant)
    _restore_sessions(restored, snapshot)
    locked = _restore_locks(restored, snapshot)
    _restore_messages(restored, snapshot, locked)
    _hold_locks(restored, now_ms)
    restore_ids(restored, snapshot.duplicates)
    clients = sorted(snapshot.clients)
    requests = sorted(snapshot.requests, key=lambda row: (row.client_id, row.counter))
    restored.requests.restore(clients, requests, now_ms)
    for client_id in restored.requests.client_ids():
        restored.watch_client(client_id, now_ms)
    return restored


def _restore_dead_letters(partition: Partition, snapshot: Snapshot) -> None:
    for row in sorted(snapshot.dead_letters, key=lambda row: (row.entity, row.position)):
        queue = partition.queues_by_number[row.entity]
        queue.dead_order[row.sequence] = row.position
        queue.dead_info[row.sequence] = DeadLetterInfo(row.reason, row.description)


def _restore_sessions(partition: Partition, snapshot: Snapshot) -> None:
    for row in sorted(snapshot.sessions, key=lambda row: (row.entity, row.grant, row.session_id)):
        queue = partition.queues_by_number[row.entity]
        session = Session(SessionId(row.session_id), row.turn)
        session.is_stored = True
        session.grant = row.grant
        session.holder = row.holder
        session.locked_until_ms = row.locked_until_ms
        session.granted_ms = row.granted_ms
        session.cursor = row.cursor
        session.returned = array("q", row.returned).tolist()
        session.state_version = row.state_version
        queue.sessions[session.session_id] = session
        queue.turn = max(queue.turn, row.turn)
    for state in snapshot.states:
        queue = partition.queues_by_number[state.entity]
        queue.sessions[SessionId(state.session_id)].state_bytes = state.size
        queue.states_bytes += state.size
        queue.states_count += 1


def _restore_locks(partition: Partition, snapshot: Snapshot) -> dict[int, dict[int, int]]:
    """Put back the locks of plain messages; return, for each queue, the grant of each locked message."""
    locked: dict[int, dict[int, int]] = defaultdict(dict)
    for row in sorted(snapshot.locks, key=lambda row: (row.entity, row.grant)):
        queue = partition.queues_by_number[row.entity]
        sequences = array("q", row.sequences)
        untils = array("q", row.locked_until_ms)
        held = {
            sequence: until
            for sequence, until in zip(sequences, untils, strict=True)
            if (sequence in queue.dead_order) == bool(row.dead_letter)
        }
        if not held:
            continue
        queue.plain(dead_letter=bool(row.dead_letter)).restore_lock(row.grant, held)
        queue.graced.add(row.grant)
        locked[row.entity].update(dict.fromkeys(held, row.grant))
    return locked


def _restore_messages(
    partition: Partition, snapshot: Snapshot, locked: dict[int, dict[int, int]]
) -> None:
    gone: dict[int, list[GoneRow]] = defaultdict(list)
    for row in snapshot.gone:
        gone[row.chunk].append(row)
    moved: dict[int, list[MovedRow]] = defaultdict(list)
    for again in snapshot.moved:
        moved[again.chunk].append(again)
    found: dict[int, _Found] = defaultdict(_Found)
    for chunk in snapshot.chunks:
        queue = partition.queues_by_number[chunk.entity]
        _restore_chunk(
            partition, queue, chunk, gone[chunk.chunk], moved[chunk.chunk], found[chunk.entity]
        )
    for number, queue in partition.queues_by_number.items():
        found[number].sort()
        for session_id, numbers in found[number].sessions.items():
            session = queue.sessions.get(session_id)
            if session is None:
                # It was never held, so it stands before all that were released (SES-13).
                session = queue.sessions[session_id] = Session(session_id, turn=0)
            ends = queue.log.expiries(numbers) if queue.log.has_expiries else ()
            session.add(numbers, earliest(ends))
    _trim_locks(partition)
    for number, queue in partition.queues_by_number.items():
        held = locked[number]
        for sequence, deferred in queue.deferred.items():
            if deferred.session_id is None:
                deferred.grant = held.get(sequence, 0)
        queue.main.restore_ready(array("q", (s for s in found[number].plain if s not in held)))
        queue.dead.restore_ready(
            array("q", (s for s in queue.dead_order if s not in held and s not in queue.deferred))
        )


class _Found:
    """The active messages of one queue, as they are found in its chunks."""

    __slots__ = ("is_moved", "plain", "sessions")

    def __init__(self) -> None:
        self.plain = array("q")
        self.sessions: dict[SessionId, array[int]] = {}
        self.is_moved = False

    def sort(self) -> None:
        """Put the messages in order; they are in order already unless some have new numbers."""
        if self.is_moved:
            self.plain = array("q", sorted(self.plain))
            self.sessions = {name: array("q", sorted(n)) for name, n in self.sessions.items()}


def _ends(
    chunk: ChunkRow, ttls: array[int] | None, again: dict[int, tuple[int, int]]
) -> array[int] | None:
    """Return when the messages of a chunk expire, 0 = never; None = none does."""
    if ttls is None:
        return None
    since = (
        (again[place][1] if place in again else chunk.enqueued_ms) for place in range(len(ttls))
    )
    return array("q", (ms + ttl if ttl else 0 for ms, ttl in zip(since, ttls, strict=True)))


def _restore_schedule(
    partition: Partition,
    queue: Queue,
    chunk: ChunkRow,
    pairs: list[tuple[int, int]],
    again: dict[int, tuple[int, int]],
    ids: list[str],
    ttls: array[int] | None,
) -> list[tuple[int, int]]:
    """Schedule the messages of a chunk that are not active yet, and return the others."""
    due_ms = array("q", chunk.due_ms)
    active = []
    for number, place in pairs:
        if not due_ms[place] or place in again:
            active.append((number, place))
            continue
        session_id = ids[place if len(ids) > 1 else 0] if chunk.sessions else None
        if session_id is not None:  # as in `_restore_messages`
            queue.sessions.setdefault(SessionId(session_id), Session(SessionId(session_id), turn=0))
        ttl = ttls[place] if ttls is not None else 0
        schedule(partition, queue, number, due_ms[place], ttl, session_id)
    return active


def _restore_deferred(
    queue: Queue, chunk: ChunkRow, active: list[tuple[int, int]], ids: list[str]
) -> list[tuple[int, int]]:
    """Set aside the messages of a chunk that are deferred, and return the others."""
    others = []
    for number, place in active:
        deferred = queue.deferred.get(number)
        if deferred is None:
            others.append((number, place))
        elif chunk.sessions:
            session_id = SessionId(ids[place if len(ids) > 1 else 0])
            session = queue.sessions.setdefault(session_id, Session(session_id, turn=0))
            deferred.session_id = session_id
            session.deferred += 1
            if session.is_held and deferred.grant == session.grant:
                session.deferred_hand.add(number)
            else:
                deferred.grant = 0
    return others


def _restore_chunk(
    partition: Partition,
    queue: Queue,
    chunk: ChunkRow,
    gone: list[GoneRow],
    moved: list[MovedRow],
    found: _Found,
) -> None:
    count = len(chunk.sizes) // array("I").itemsize
    missing = bytearray(count)
    for part in gone:
        missing[part.first : part.last + 1] = b"\x01" * (part.last - part.first + 1)
    again: dict[int, tuple[int, int]] = {}
    ids: list[str] = json.loads(chunk.sessions) if chunk.sessions else [""]
    ids = ids * count if len(ids) == 1 and moved else ids
    for row in sorted(moved, key=lambda row: row.first_sequence):
        found.is_moved = True
        for number, place in enumerate(range(row.first, row.last + 1), row.first_sequence):
            again[place] = (number, row.enqueued_ms)
            if row.session_id is not None:
                ids[place] = row.session_id
    ttls = array("q", chunk.ttls) if chunk.ttls else None
    numbers, places = queue.log.restore(chunk, missing, again, _ends(chunk, ttls, again))
    pairs = list(zip(numbers, places, strict=True))
    if chunk.due_ms:
        pairs = _restore_schedule(partition, queue, chunk, pairs, again, ids, ttls)
    active = [pair for pair in pairs if pair[0] not in queue.dead_order]
    if queue.deferred:
        active = _restore_deferred(queue, chunk, active, ids)
    if not queue.definition.settings.requires_session:
        found.plain.extend(number for number, _ in active)
        return
    for number, place in active:
        session_id = SessionId(ids[0] if len(ids) == 1 else ids[place])
        of_session = found.sessions.get(session_id)
        if of_session is None:
            of_session = found.sessions[session_id] = array("q")
        of_session.append(number)


def _trim_locks(partition: Partition) -> None:
    """Take out of locks, and of what came back, the messages that were settled since their row was written."""
    for queue in partition.queues_by_number.values():
        for store in (queue.main, queue.dead):
            for grant, held in list(store.grants.items()):
                for sequence in [s for s in held if not queue.log.holds(s)]:
                    store.unlock(grant, sequence)
        for session in queue.sessions.values():
            session.returned = [s for s in session.returned if queue.log.holds(s)]


def _hold_locks(partition: Partition, now_ms: int) -> None:
    """Give every recorded lock its grace (ADD-4) and watch its end."""
    grace_until = now_ms + partition.limits.outage_grace_ms
    nothing = Step(now_ms)
    for queue in partition.queues_by_number.values():
        for session in list(queue.sessions.values()):
            if session.is_held:
                session.grace = True
                session.locked_until_ms = max(session.locked_until_ms, grace_until)
                queue.held_count += 1
                subject = Subject("session", queue.number, session.session_id, session.grant)
                partition.deadlines.add(session.locked_until_ms, subject)
            elif session.grant:
                session.released_ms = now_ms
            queue.reindex(session, nothing)
        for store in (queue.main, queue.dead):
            for grant, held in store.grants.items():
                for sequence in held:
                    held[sequence] = max(held[sequence], grace_until)
                partition.deadlines.add(
                    min(held.values()), Subject("lock", queue.number, "", grant)
                )
