"""Everything that can be seen of a partition, as plain values that can be compared.

Here belongs the reading of a partition for two comparisons: before and after a refused command (design
law 1), and with what its store would give back (design section 2: what was replied is stored).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from lockstep.core.changes import ClientRow
from lockstep.core.partition import Partition
from lockstep.core.plain import PlainStore
from lockstep.core.queue import Queue
from lockstep.core.session import Session
from lockstep.core.snapshot import Snapshot, restore_partition


def picture(partition: Partition) -> dict[str, Any]:
    """Return what a partition is made of. What no store keeps, such as its memory of losses, is left out."""
    catalogue = partition.catalogue
    return {
        "queues": {key: _queue(queue) for key, queue in sorted(partition.queues.items())},
        "catalogue": catalogue and (catalogue.queues, catalogue.deleted, catalogue.revision),
        "requests": sorted(_request(row) for row in partition.requests.rows()),
        "messages": partition.totals.messages,
        "last_chunk": partition.last_chunk,
        "last_grant": partition.last_grant,
    }


class Opened(NamedTuple):
    """The opening of a partition: locks up to `last_grant` were given a grace until `grace_until_ms` (ADD-4)."""

    last_grant: int
    grace_until_ms: int


def restored_picture(partition: Partition, snapshot: Snapshot, opened: Opened) -> dict[str, Any]:
    """Return the picture of what a snapshot gives back at the same moment.

    Locks have the grace of the opening before, which no store keeps, and none of their own.
    """
    limits = replace(partition.limits, outage_grace_ms=0)
    restored = restore_partition(partition.partition, limits, snapshot, partition.last_time_ms)
    for queue in restored.queues.values():
        for session in queue.sessions.values():
            if session.is_held and session.grant <= opened.last_grant:
                session.locked_until_ms = max(session.locked_until_ms, opened.grace_until_ms)
        for store in (queue.main, queue.dead):
            for grant, held in store.grants.items():
                if grant <= opened.last_grant:
                    for sequence, until_ms in held.items():
                        held[sequence] = max(until_ms, opened.grace_until_ms)
    return picture(restored)


def _request(row: Any) -> tuple[Any, ...]:
    if isinstance(row, ClientRow):
        return (row.client_id, -1, row.floor, "")
    return tuple(row)


def _queue(queue: Queue) -> dict[str, Any]:
    active = [s for session in queue.sessions.values() for s in session.active()]
    active += [*queue.main.ready(), *_locked(queue.main), *queue.dead_order]
    described = queue.log.describe(sorted(active))
    return {
        "definition": queue.definition,
        "log": (queue.log.last_sequence, queue.log.count, queue.log.size_bytes),
        "messages": dict(zip(sorted(active), zip(*described, strict=True), strict=True)),
        "sessions": {name: _session(session) for name, session in sorted(queue.sessions.items())},
        "main": _store(queue.main),
        "dead": _store(queue.dead),
        "dead_info": queue.dead_info.copy(),
        "dead_order": queue.dead_order.copy(),
        "last_dead_letter": queue.last_dead_letter,
        "dead_sessions": (queue.dead_sessions.copy(), queue.dead_in_session.copy()),
        "delays": queue.delays.copy(),
        "amendments": (queue.amendments.copy(), queue.amended_bytes),
        "counts": queue.counts.copy(),
        "held": queue.held_count,
        "runnable": len(queue.runnable),
        "states": (queue.states_count, queue.states_bytes),
    }


def _session(session: Session) -> dict[str, Any]:
    return {
        "grant": session.grant,
        "holder": session.holder,
        "locked_until_ms": session.locked_until_ms,
        "granted_ms": session.granted_ms,
        "active": session.active().tolist(),
        "cursor": session.cursor,
        "returned": list(session.returned),
        "in_hand": session.in_hand().tolist(),
        "turn": session.turn if session.is_stored else None,
        "is_stored": session.is_stored,
        "state": (session.state_bytes, session.state_version, session.state_set_ms),
        "delayed": session.delayed.copy(),
        "lock": (session.address, session.renewals, session.last_loss),
    }


def _store(store: PlainStore) -> dict[str, Any]:
    # Which messages are ready, not in which order: the order has tests of its own.
    grants = {grant: dict(held) for grant, held in store.grants.items()}
    return {"ready": sorted(store.ready()), "grants": grants}


def _locked(store: PlainStore) -> list[int]:
    return [sequence for held in store.grants.values() for sequence in held]
