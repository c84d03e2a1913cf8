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

from lockstep.core.amendments import Amendment
from lockstep.core.aside import Deferred, Delay
from lockstep.core.changes import (
    AmendmentRow,
    ArrivalRow,
    CatalogueRow,
    ChunkRow,
    ClientRow,
    CounterRow,
    CountRow,
    DeadLetterRow,
    DeferredRow,
    DelayRow,
    DuplicatesRow,
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
from lockstep.core.deadlines import Subject
from lockstep.core.delaying import watch
from lockstep.core.duplicates import restore_ids
from lockstep.core.entity import QueueDefinition
from lockstep.core.idling import watch_queue, watch_state
from lockstep.core.ids import ChunkId, GrantNumber, PartitionId, SessionId
from lockstep.core.jobs import Job
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.plain import FOR_EVER_MS
from lockstep.core.queue import Queue, Step
from lockstep.core.replies import DeadLetterInfo
from lockstep.core.restoring import restore_messages
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
    delays: Iterable[DelayRow] = field(default_factory=list)
    amendments: Iterable[AmendmentRow] = field(default_factory=list)
    jobs: Iterable[JobRow] = field(default_factory=list)
    arrivals: Iterable[ArrivalRow] = field(default_factory=list)
    duplicates: Sequence[DuplicatesRow] = field(default_factory=list)
    requests: Iterable[RequestRow] = field(default_factory=list)
    clients: Iterable[ClientRow] = field(default_factory=list)


def restore_partition(
    partition: PartitionId,
    limits: Limits,
    snapshot: Snapshot,
    now_ms: int,
    *,
    partitions: int = 1,
) -> Partition:
    """Return the partition that a snapshot describes.

    Args:
        partition: Its number.
        limits: The installation's limits.
        snapshot: What storage holds.
        now_ms: The time of day; at least `snapshot.partition.last_time_ms`.
        partitions: How many the cluster has.
    """
    restored = Partition(partition, limits, now_ms=now_ms, partitions=partitions)
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
    _restore_asides(restored, snapshot)
    _restore_sessions(restored, snapshot)
    locked = _restore_locks(restored, snapshot)
    restore_messages(restored, snapshot, locked)
    _hold_locks(restored, now_ms)
    _watch_idleness(restored, now_ms)
    restore_ids(restored, snapshot.duplicates)
    clients = sorted(snapshot.clients)
    requests = sorted(snapshot.requests, key=lambda row: (row.client_id, row.counter))
    restored.requests.restore(clients, requests, now_ms)
    for client_id in restored.requests.client_ids():
        restored.watch_client(client_id, now_ms)
    return restored


def _restore_asides(restored: Partition, snapshot: Snapshot) -> None:
    """Put back what is known of single messages, and of jobs."""
    queues = restored.queues_by_number
    for deferred in snapshot.deferred:
        queues[deferred.entity].deferred[deferred.sequence] = Deferred(None, deferred.grant)
    for delayed in sorted(snapshot.delays):
        queues[delayed.entity].delays[delayed.sequence] = Delay(delayed.until_ms, None)
        watch(restored, queues[delayed.entity], delayed.sequence, delayed.until_ms)
    for amended in snapshot.amendments:
        amendment = Amendment.from_text(amended.amendment)
        queues[amended.entity].amendments[amended.sequence] = amendment
        queues[amended.entity].amended_bytes += amendment.size_bytes
    for row_of_job in sorted(snapshot.jobs):
        restored.queues_by_number[row_of_job.entity].restore_job(Job.from_text(row_of_job.job))
    for arrival in snapshot.arrivals:
        queue = restored.queues_by_number[arrival.entity]
        queue.arrivals[arrival.source] = (arrival.number, arrival.result)


def _watch_idleness(restored: Partition, now_ms: int) -> None:
    for queue in restored.queues.values():
        queue.activity.use(now_ms)
        watch_queue(restored, queue)
        for session in queue.sessions.values():
            watch_state(restored, queue, session, now_ms)


def _restore_dead_letters(partition: Partition, snapshot: Snapshot) -> None:
    for row in sorted(snapshot.dead_letters, key=lambda row: (row.entity, row.position)):
        queue = partition.queues_by_number[row.entity]
        queue.dead_order[row.sequence] = row.position
        queue.dead_info[row.sequence] = DeadLetterInfo(
            row.reason, row.description, row.dead_lettered_ms
        )


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
        session.state_set_ms = row.state_set_ms
        session.released_ms = row.released_ms
        session.address = row.address
        session.renewals = row.renewals
        session.last_loss = row.last_loss
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
        queue.plain(dead_letter=bool(row.dead_letter)).hold(row.grant, held)
        queue.graced.add(row.grant)
        locked[row.entity].update(dict.fromkeys(held, row.grant))
    return locked


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
            queue.reindex(session, nothing)
        for store in (queue.main, queue.dead):
            for grant, held in store.grants.items():
                for sequence in held:
                    held[sequence] = max(held[sequence], grace_until)
                end = min(held.values())
                if end < FOR_EVER_MS:
                    partition.deadlines.add(end, Subject("lock", queue.number, "", grant))
