"""How the messages of a partition come back from storage.

Here belongs the way from stored chunks to the places of their messages. Never here: sessions, locks and everything
else that a snapshot holds (`snapshot`). The law: in which order a store gives its rows makes no difference.
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from typing import TYPE_CHECKING

from lockstep.core.changes import ChunkRow, GoneRow, MovedRow
from lockstep.core.expiring import earliest
from lockstep.core.ids import SessionId
from lockstep.core.scheduling import schedule
from lockstep.core.session import Session

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue
    from lockstep.core.snapshot import Snapshot


def restore_messages(
    partition: Partition, snapshot: Snapshot, locked: dict[int, dict[int, int]]
) -> None:
    """Put every stored message where it belongs; dead letters, locks, counts and delays must be known already.

    Args:
        partition: Where to.
        snapshot: What storage holds.
        locked: For each queue, the grant of each locked message.
    """
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
        for sequence, amendment in queue.amendments.items():
            if amendment.enqueued_ms:
                queue.log.enqueue_again(sequence, amendment.enqueued_ms)
        _fill_sessions(queue, found[number])
    _trim_locks(partition)
    for number, queue in partition.queues_by_number.items():
        held = locked[number]
        for sequence, deferred in queue.deferred.items():
            if deferred.session_id is None:
                deferred.grant = held.get(sequence, 0)
        aside = held.keys() | queue.delays.keys()
        queue.main.restore_ready(array("q", (s for s in found[number].plain if s not in aside)))
        aside |= queue.deferred.keys()
        queue.dead.restore_ready(array("q", (s for s in queue.dead_order if s not in aside)))


def _fill_sessions(queue: Queue, found: _Found) -> None:
    found.sort()
    for session_id, numbers in found.sessions.items():
        session = queue.sessions.get(session_id)
        if session is None:
            # It was never held, so it stands before all that were released (SES-13).
            session = queue.sessions[session_id] = Session(session_id, turn=0)
        ends = queue.log.expiries(numbers) if queue.log.has_expiries else ()
        session.add(numbers, earliest(ends))
    for sequence, session_id in found.delayed:
        queue.sessions[session_id].delay(sequence)
        queue.delays[sequence] = queue.delays[sequence]._replace(session_id=session_id)


class _Found:
    """The active messages of one queue, as they are found in its chunks."""

    __slots__ = ("delayed", "is_moved", "plain", "sessions")

    def __init__(self) -> None:
        self.plain = array("q")
        self.delayed: list[tuple[int, SessionId]] = []
        self.sessions: dict[SessionId, array[int]] = {}
        self.is_moved = False

    def add(self, queue: Queue, number: int, session_id: SessionId) -> None:
        """Note an active message of a session."""
        if number in queue.delays:
            self.delayed.append((number, session_id))
        of_session = self.sessions.get(session_id)
        if of_session is None:
            of_session = self.sessions[session_id] = array("q")
        of_session.append(number)

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
    again, ids = _moves(chunk, moved)
    found.is_moved |= bool(again)
    ttls = array("q", chunk.ttls) if chunk.ttls else None
    numbers, places = queue.log.restore(chunk, missing, again, _ends(chunk, ttls, again))
    pairs = list(zip(numbers, places, strict=True))
    if chunk.due_ms:
        pairs = _restore_schedule(partition, queue, chunk, pairs, again, ids, ttls)
    if queue.dead_order:
        pairs = _restore_dead(queue, chunk, pairs, ids)
    if queue.deferred:
        pairs = _restore_deferred(queue, chunk, pairs, ids)
    if queue.definition.settings.requires_session:
        for number, place in pairs:
            found.add(queue, number, SessionId(ids[0] if len(ids) == 1 else ids[place]))
    else:
        found.plain.extend(number for number, _ in pairs)


def _moves(chunk: ChunkRow, moved: list[MovedRow]) -> tuple[dict[int, tuple[int, int]], list[str]]:
    """Return the new numbers and times of the messages of a chunk, by place, and their sessions."""
    again: dict[int, tuple[int, int]] = {}
    ids: list[str] = json.loads(chunk.sessions) if chunk.sessions else [""]
    if moved and len(ids) == 1:
        ids = ids * (len(chunk.sizes) // array("I").itemsize)
    for row in sorted(moved, key=lambda row: row.first_sequence):
        for number, place in enumerate(range(row.first, row.last + 1), row.first_sequence):
            again[place] = (number, row.enqueued_ms)
            if row.session_id is not None:
                ids[place] = row.session_id
    return again, ids


def _restore_dead(
    queue: Queue, chunk: ChunkRow, pairs: list[tuple[int, int]], ids: list[str]
) -> list[tuple[int, int]]:
    """Note the sessions of the dead letters of a chunk, and return the other messages."""
    others = []
    for number, place in pairs:
        if number not in queue.dead_order:
            others.append((number, place))
        elif chunk.sessions:
            queue.note_dead(number, SessionId(ids[place if len(ids) > 1 else 0]))
    return others


def _trim_locks(partition: Partition) -> None:
    """Take out of locks, and of what came back, the messages that were settled since their row was written."""
    for queue in partition.queues_by_number.values():
        for store in (queue.main, queue.dead):
            for grant, held in list(store.grants.items()):
                for sequence in [s for s in held if not queue.log.holds(s)]:
                    store.unlock(grant, sequence)
        for session in queue.sessions.values():
            if session.returned:
                active = set(session.active())
                session.returned = [s for s in session.returned if s in active]
