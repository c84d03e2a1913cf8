"""What a partition shows of itself.

Here belong reads that lock nothing and change nothing (SES-53). Never here: anything that writes.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from lockstep.core.commands import Browse, GetRuntime, GetSession, ListSessions
from lockstep.core.errors import InvalidOperation
from lockstep.core.ids import EntityKey, SessionId
from lockstep.core.limits import Limits, check_between
from lockstep.core.replies import Browsed, Runtime, SessionView, SessionViews, Short
from lockstep.core.session import Session

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step


def on_get_runtime(partition: Partition, command: GetRuntime, _step: Step) -> Runtime:
    """Count what a queue holds."""
    return runtime_of(partition.queue(command.entity))


def runtime_of(queue: Queue) -> Runtime:
    """Count what a queue holds in this partition (CNT-1, CNT-2)."""
    if queue.definition.settings.requires_session:
        locked = sum(
            s.in_hand_count + len(s.deferred_hand) for s in queue.sessions.values() if s.is_held
        )
    else:
        locked = queue.main.locked_count
    dead_letters = len(queue.dead_info)
    return Runtime(
        active=queue.log.count - dead_letters - len(queue.scheduled),
        scheduled=len(queue.scheduled),
        deferred=sum(1 for sequence in queue.deferred if sequence not in queue.dead_order),
        locked=locked,
        dead_letters=dead_letters,
        size_bytes=queue.size_bytes,
        sessions=len(queue.sessions),
        locked_sessions=queue.held_count,
        runnable_sessions=queue.runnable_count,
        idle_sessions_with_state=len(queue.sessions) - queue.held_count - queue.runnable_count,
    )


def oldest_ready(queue: Queue) -> int | None:
    """Return the lowest number of the messages that a receiver could get now; None = there is none."""
    if queue.definition.settings.requires_session:
        ready = (session.oldest_deliverable for session in queue.sessions.values())
        return min(filter(None, ready), default=None)
    return next(iter(queue.main.peek_ready(1)), None)


def first_ready_dead_letter(queue: Queue) -> int | None:
    """Return the number of the dead letter that a receiver would get first; None = there is none."""
    return next(iter(queue.dead.peek_ready(1)), None)


def on_list_sessions(partition: Partition, command: ListSessions, _step: Step) -> SessionViews:
    """Show the sessions that have messages or a state, or are held (SES-49 … SES-53)."""
    queue = _session_queue(partition, command.entity)
    ids = (i for i in queue.sessions if command.after is None or i > command.after)
    chosen = sorted(ids)[: command.maximum]
    return SessionViews(tuple(_view(queue.sessions[session_id]) for session_id in chosen))


def on_get_session(partition: Partition, command: GetSession, _step: Step) -> SessionViews:
    """Show one session; one that nothing is known of is shown as empty."""
    queue = _session_queue(partition, command.entity)
    session = queue.sessions.get(command.session_id)
    return SessionViews((_view(session or Session(SessionId(command.session_id), 0)),))


def on_browse(partition: Partition, command: Browse, _step: Step) -> Browsed:
    """Show messages as they are, by rising number, whoever holds them (PEK-1 … PEK-7)."""
    queue = partition.queue(command.entity)
    check_between(command.max_messages, 1, partition.limits.receive_messages_max, "max_messages")
    if command.dead_letter and command.session_id is not None:
        raise InvalidOperation(
            f"The dead-letter store of {queue.path} has no sessions (DLQ-4): look at it without one.",
            details={"entity": queue.path},
        )
    wanted = command.max_messages
    if command.dead_letter:
        numbers = heapq.nsmallest(
            wanted + 1, (s for s in queue.dead_order if s >= command.from_sequence)
        )
    elif command.session_id is not None:
        numbers = _numbers_of_session(queue, command.session_id, command.from_sequence, wanted + 1)
    else:
        numbers = queue.log.numbers(command.from_sequence, wanted + 1, queue.dead_order)
    chosen = array("q", numbers[:wanted])
    fitting = _fitting(queue, chosen, partition.limits, dead_letter=command.dead_letter)
    shown = chosen[:fitting]
    delivered = queue.delivered(
        shown,
        grant=0,
        locked_until_ms=0,
        short=Short.NO,
        dead_letter=command.dead_letter,
    )
    scheduled = tuple(place for place, s in enumerate(shown) if s in queue.scheduled)
    return Browsed(delivered, scheduled, has_more=len(shown) < len(numbers))


def _numbers_of_session(queue: Queue, session_id: SessionId, first: int, most: int) -> list[int]:
    session = queue.sessions.get(session_id)
    active = session.active() if session is not None else array("q")
    start = bisect_left(active, first)
    found = active[start : start + most].tolist()
    if session is not None and session.scheduled:
        later = (s for s, m in queue.scheduled.items() if m.session_id == session_id and s >= first)
        found = heapq.nsmallest(most, [*found, *later])
    return found


def _fitting(queue: Queue, numbers: array[int], limits: Limits, *, dead_letter: bool) -> int:
    """Return how many messages fit into a response; at least one."""
    described = queue.log.describe(numbers)
    sizes = queue.sizes(numbers, described, dead_letter=dead_letter)
    fitting = bisect_right(list(accumulate(sizes)), limits.response_bytes_max)
    return min(max(1, fitting), queue.log.loadable(described, limits.load_bytes_max))


def _session_queue(partition: Partition, entity: EntityKey) -> Queue:
    queue = partition.queue(entity)
    if not queue.definition.settings.requires_session:
        raise InvalidOperation(
            f"{queue.path} has no sessions to show.", details={"entity": queue.path}
        )
    return queue


def _view(session: Session) -> SessionView:
    return SessionView(
        session_id=session.session_id,
        active=session.active_count,
        locked=session.in_hand_count + len(session.deferred_hand),
        scheduled=session.scheduled,
        deferred=session.deferred,
        holder=session.holder,
        locked_until_ms=session.locked_until_ms,
        grant=session.grant,
        state_bytes=session.state_bytes,
        state_version=session.state_version,
    )
