"""A partition as plain values: everything it is made of, and what must outlive it."""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from typing import Any

from lockstep.core.changes import ClientRow
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.queue import Queue
from lockstep.core.session import Session
from lockstep.core.snapshot import Snapshot

_ATOMS = (int, str, bytes, bool, float, type(None))


def everything(value: Any) -> Any:
    """Return whatever an object is made of, so that two dumps differ when any field does."""
    if isinstance(value, _ATOMS):
        return value
    if isinstance(value, Limits):
        return "limits"
    if isinstance(value, dict | OrderedDict):
        return [(everything(k), everything(v)) for k, v in value.items()]
    if isinstance(value, list | tuple | deque):
        return [everything(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, array | bytearray):
        return (getattr(value, "typecode", "b"), bytes(value))
    names = getattr(type(value), "__slots__", None) or vars(value)
    return [type(value).__name__, *((name, everything(getattr(value, name))) for name in names)]


def durable(partition: Partition, *, reopened_ms: int | None) -> dict[str, Any]:
    """Return what a partition must still know when it comes back from its store.

    Args:
        partition: The partition.
        reopened_ms: Show locks as if the partition were opened at this time; None = as they are.
    """
    until_min = 0 if reopened_ms is None else reopened_ms + partition.limits.outage_grace_ms
    return {
        "numbers": (partition.last_chunk, partition.last_grant, partition.last_revision),
        "queues": {n: _queue(q, until_min) for n, q in partition.queues_by_number.items()},
        "requests": sorted(
            row._replace(last_seen_ms=0) if isinstance(row, ClientRow) else row
            for row in partition.requests.rows()
        ),
        "messages": partition.totals.messages,
    }


def _queue(queue: Queue, until_min: int) -> dict[str, Any]:
    stored = sorted(sequences(queue))
    return {
        "definition": queue.definition,
        "log": (queue.log.last_sequence, queue.log.count, queue.log.size_bytes),
        "stored": (stored, *map(list, queue.log.describe(stored))),
        "sessions": {i: _session(s, until_min) for i, s in queue.sessions.items()},
        "states": (queue.states_bytes, queue.states_count),
        "main": (list(queue.main.ready()), _locks(queue.main.grants, until_min)),
        "dead": (list(queue.dead.ready()), _locks(queue.dead.grants, until_min)),
        "dead order": (queue.last_dead_letter, dict(queue.dead_order), dict(queue.dead_info)),
        "counts": dict(queue.counts),
        "amendments": dict(sorted(queue.amendments.items())),
        "amended bytes": queue.amended_bytes,
        "delays": dict(sorted(queue.delays.items())),
        "deferred": {s: (d.session_id, d.grant) for s, d in sorted(queue.deferred.items())},
        "scheduled": dict(sorted(queue.scheduled.items())),
        "expiries": list(queue.log.expiries(stored)),
        "known ids": dict(queue.history._sequences),
        "known since": [batch.at_ms for batch in queue.history._batches],
        "held": queue.held_count,
        "runnable": len(queue.runnable),
    }


def _session(session: Session, until_min: int) -> tuple[Any, ...]:
    lock = None
    if session.is_held:
        until_ms = max(session.locked_until_ms, until_min)
        lock = (session.holder, session.granted_ms, until_ms, session.cursor)
    return (
        session.grant,
        lock,
        list(session.active()),
        list(session.in_hand()),
        list(session.returned),
        session.state_bytes,
        session.state_version,
        session.turn if session.is_stored else None,
        session.is_stored,
        (session.scheduled, session.deferred, sorted(session.deferred_hand)),
        list(session.delayed),
    )


def _locks(grants: dict[int, dict[int, int]], until_min: int) -> dict[int, dict[int, int]]:
    return {
        grant: {sequence: max(until, until_min) for sequence, until in held.items()}
        for grant, held in grants.items()
    }


def sequences(queue: Queue) -> list[int]:
    """Return every message that a queue has in some place."""
    found = [s for session in queue.sessions.values() for s in session.active()]
    found += queue.main.ready()
    found += [s for held in queue.main.grants.values() for s in held]
    found += list(queue.scheduled) + list(queue.dead_order)
    # A delayed message of a session keeps its place there; of a plain queue it is nowhere else.
    found += [
        s
        for s, delay in queue.delays.items()
        if delay.session_id is None and s not in queue.dead_order
    ]
    # A deferred message of a plain queue that is locked stands under its lock.
    found += [
        s
        for s, deferred in queue.deferred.items()
        if s not in queue.dead_order and (deferred.session_id is not None or not deferred.grant)
    ]
    return found


def litter(partition: Partition, snapshot: Snapshot) -> list[str]:
    """Return the rows of a store that belong to nothing that the partition still has."""
    found = []
    live = set()
    for queue in partition.queues_by_number.values():
        live |= set(queue.log.describe(sorted(sequences(queue))).chunks)
    found += [f"chunk {row.chunk}" for row in snapshot.chunks if row.chunk not in live]
    found += [f"gone {row.chunk}" for row in snapshot.gone if row.chunk not in live]
    found += [f"moved {row.chunk}" for row in snapshot.moved if row.chunk not in live]
    for number, queue in partition.queues_by_number.items():
        found += _litter_of(queue, snapshot, number)
    return found


def _litter_of(queue: Queue, snapshot: Snapshot, number: int) -> list[str]:
    with_state = {i for i, s in queue.sessions.items() if s.state_bytes is not None}
    grants = {*queue.main.grants, *queue.dead.grants}
    kept: list[tuple[Any, str, Any]] = [
        (snapshot.sessions, "session_id", queue.sessions),
        (snapshot.states, "session_id", with_state),
        (snapshot.locks, "grant", grants),
        (snapshot.counts, "sequence", queue.counts),
        (snapshot.amendments, "sequence", queue.amendments),
        (snapshot.delays, "sequence", queue.delays),
        (snapshot.dead_letters, "sequence", queue.dead_order),
        (snapshot.deferred, "sequence", queue.deferred),
        (snapshot.duplicates, "chunk", {batch.chunk for batch in queue.history._batches}),
    ]
    return [
        str(row)
        for rows, name, known in kept
        for row in rows
        if row.entity == number and getattr(row, name) not in known
    ]
