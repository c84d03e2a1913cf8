"""What a partition does with messages that become active later (section 8 of the contract).

Here belongs the way of a message from its schedule to its activation, or to its cancellation. Never here: a clock.
The laws: a scheduled message is in no session and in no store, and delays nobody (SCH-6); when it becomes active it is
enqueued anew, with a new number, and its time to live begins (SCH-3, TTL-2); cancellation takes all or none (SCH-5).
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lockstep.core.aside import Scheduled
from lockstep.core.commands import CancelScheduled
from lockstep.core.deadlines import Subject
from lockstep.core.errors import MessageNotFound
from lockstep.core.expiring import ends
from lockstep.core.ids import SessionId
from lockstep.core.limits import check_at_most
from lockstep.core.replies import ScheduleCancelled

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step

_AT_ONCE_MAX = 1024  # activated in one step; the rest follows in the next ones


def due_times(given: Sequence[int], count: int, now_ms: int) -> array[int] | None:
    """Return when each message becomes active, 0 = at once; None = all at once (SCH-1)."""
    if not given or max(given) <= now_ms:
        return None
    each = given if len(given) == count else tuple(given) * count
    return array("q", (due if due > now_ms else 0 for due in each))


def set_aside(
    partition: Partition,
    queue: Queue,
    first: int,
    due_ms: array[int],
    ttls: array[int] | None,
    session_ids: Sequence[str | None],
) -> tuple[array[int], Sequence[str | None]]:
    """Schedule those messages of a send that are due later; return the numbers and sessions of the others."""
    active, active_ids = array("q"), []
    for place, due in enumerate(due_ms):
        session_id = session_ids[place if len(session_ids) > 1 else 0]
        if not due:
            active.append(first + place)
            active_ids.append(session_id)
            continue
        ttl = ttls[place] if ttls is not None else 0
        schedule(partition, queue, first + place, due, ttl, session_id)
    return active, active_ids


def schedule(
    partition: Partition,
    queue: Queue,
    sequence: int,
    due_ms: int,
    ttl_ms: int,
    session_id: str | None,
) -> None:
    """Let a stored message become active at a time."""
    wanted = SessionId(session_id) if session_id is not None else None
    queue.scheduled[sequence] = Scheduled(due_ms, ttl_ms, wanted)
    queue.log.never_expires(sequence)
    if wanted is not None:
        queue.session(wanted).scheduled += 1
    heapq.heappush(queue.schedule, (due_ms, sequence))
    if queue.schedule[0][1] == sequence:
        partition.deadlines.add(due_ms, Subject("schedule", queue.number))


def activate(partition: Partition, subject: Subject, step: Step) -> None:
    """Enqueue the scheduled messages whose time has come, in the order of their times."""
    queue = partition.queues_by_number.get(subject.entity)
    if queue is None:
        return
    due: dict[int, Scheduled] = {}
    heap = queue.schedule
    while heap and heap[0][0] <= step.now_ms and len(due) < _AT_ONCE_MAX:
        _, sequence = heapq.heappop(heap)
        if sequence in queue.scheduled:
            due[sequence] = queue.scheduled.pop(sequence)
    if heap:
        partition.deadlines.add(max(heap[0][0], step.now_ms + 1), subject)
    if not due:
        return
    ttls = [message.ttl_ms for message in due.values()]
    expiries = ends(ttls, step.now_ms) if any(ttls) else None
    first, changes = queue.log.move(list(due), step.now_ms, expiries)
    step.changes.extend(changes)
    step.changes.append(queue.counter_row)
    for message in due.values():
        if message.session_id is not None:
            queue.sessions[message.session_id].scheduled -= 1
    session_ids = [message.session_id for message in due.values()]
    queue.enqueue(range(first, first + len(due)), session_ids, step)
    step.count(queue, "enqueued", "scheduled", len(due))


def on_cancel_scheduled(
    partition: Partition, command: CancelScheduled, step: Step
) -> ScheduleCancelled:
    """Take scheduled messages back, all or none (SCH-5)."""
    queue = partition.queue(command.entity)
    found = partition.repeated(command.request, command.fingerprint, "cancel_scheduled")
    if found is not None:
        return ScheduleCancelled(found[1])
    most = partition.limits.settle_messages_max
    check_at_most(len(command.sequences), most, "messages in one call", "Cancel fewer.")
    wanted = sorted(set(command.sequences))
    missing = [sequence for sequence in wanted if sequence not in queue.scheduled]
    if missing:
        raise MessageNotFound(
            f"Message {missing[0]} of {queue.path} is not scheduled: it is active or was cancelled, or never was"
            f" ({len(missing)} of {len(wanted)} are not). Nothing was cancelled.",
            details={"entity": queue.path, "sequence_number": str(missing[0])},
        )
    if command.checks_only:
        return ScheduleCancelled(len(wanted))
    for sequence in wanted:
        message = queue.scheduled.pop(sequence)
        if message.session_id is not None:
            session = queue.sessions[message.session_id]
            session.scheduled -= 1
            queue.reindex(session, step)
    queue.forget(wanted, step)
    step.count(queue, "schedules_cancelled", "", len(wanted))
    result = ("cancel_scheduled", len(wanted))
    partition.remember(command.request, command.fingerprint, result, step)
    return ScheduleCancelled(len(wanted))
