"""What a partition shows of itself.

Here belong reads that lock nothing and change nothing (SES-53). Never here: anything that writes.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from lockstep.core.commands import (
    Browse,
    GetRuntime,
    GetSession,
    ListRuntimes,
    ListSessions,
    SessionFilter,
)
from lockstep.core.errors import InvalidOperation, InvalidRequest
from lockstep.core.idling import is_state_only
from lockstep.core.ids import EntityKey, SessionId
from lockstep.core.jobs import Selector
from lockstep.core.limits import Limits, check_between
from lockstep.core.replies import Browsed, Runtime, Runtimes, SessionView, SessionViews, Short
from lockstep.core.session import Session

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step

RUNTIMES_MAX = 50
"""Queues whose figures one call gives; a queue with many sessions takes some ms."""


def on_get_runtime(partition: Partition, command: GetRuntime, _step: Step) -> Runtime:
    """Count what a queue holds."""
    queue = partition.queue(command.entity)
    oldest = oldest_ready(queue) if command.with_oldest else None
    since_ms = 0 if oldest is None else queue.log.enqueued_ms(oldest)
    return replace(runtime_of(queue), oldest_ms=since_ms)


def on_list_runtimes(partition: Partition, command: ListRuntimes, _step: Step) -> Runtimes:
    """Count what several queues hold."""
    check_between(len(command.entities), 1, RUNTIMES_MAX, "entities")
    queues = map(partition.queues.get, command.entities)
    return Runtimes(tuple(runtime_of(queue) if queue is not None else None for queue in queues))


def runtime_of(queue: Queue) -> Runtime:
    """Count what a queue holds in this partition (CNT-1, CNT-2)."""
    if queue.definition.settings.requires_session:
        locked = sum(
            s.in_hand_count + len(s.deferred_hand) for s in queue.sessions.values() if s.is_held
        )
    else:
        locked = queue.main.locked_count
    dead_letters = len(queue.dead_info)
    delayed = sum(
        1 for s, d in queue.delays.items() if d.session_id is None and s not in queue.dead_order
    )
    for name in {d.session_id for d in queue.delays.values() if d.session_id is not None}:
        session = queue.sessions[name]
        delayed += session.active_count - session.in_hand_count - session.deliverable_count
    return Runtime(
        active=queue.log.count - dead_letters - len(queue.scheduled),
        scheduled=len(queue.scheduled),
        deferred=sum(1 for sequence in queue.deferred if sequence not in queue.dead_order),
        locked=locked,
        dead_letters=dead_letters,
        size_bytes=queue.size_bytes,
        sessions=len(queue.sessions),
        locked_sessions=queue.held_count,
        runnable_sessions=len(queue.runnable),
        idle_sessions_with_state=sum(
            1 for s in queue.sessions.values() if s.state_bytes is not None and is_state_only(s)
        ),
        delayed=delayed,
        used_ms=queue.activity.used_ms,
    )


def waiting_sessions(queue: Queue) -> int:
    """Count the sessions that nobody holds and whose next message was abandoned with a delay (ADD-6)."""
    names = {d.session_id for d in queue.delays.values() if d.session_id is not None}
    sessions = (queue.sessions[name] for name in names)
    return sum(not s.is_held and s.active_count > 0 and not s.is_runnable for s in sessions)


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
    """Show the sessions that have messages or a state, or are held, or those of them that are asked for (SES-50)."""
    queue = _session_queue(partition, command.entity)
    after = command.after
    if command.shown is SessionFilter.WITH_DEAD_LETTERS:
        ids: Iterable[SessionId] = queue.dead_in_session
    elif command.shown is SessionFilter.ALL and not command.state_since_ms:
        ids = queue.sessions
    else:
        sessions = queue.sessions.values()
        ids = (s.session_id for s in sessions if _is_shown(s, command))
    chosen = heapq.nsmallest(command.maximum, (i for i in ids if after is None or i > after))
    return SessionViews(tuple(_view_of(queue, session_id) for session_id in chosen))


def _is_shown(session: Session, command: ListSessions) -> bool:
    if command.state_since_ms and (
        session.state_bytes is None or session.state_set_ms < command.state_since_ms
    ):
        return False
    match command.shown:
        case SessionFilter.HELD:
            return session.is_held
        case SessionFilter.RUNNABLE:
            return session.is_runnable
        case SessionFilter.WAITING:
            has_messages = session.active_count or session.scheduled or session.deferred
            return bool(has_messages) and not session.is_held and not session.is_runnable
        case SessionFilter.STATE_ONLY:
            return is_state_only(session)
        case _:
            return True


def on_get_session(partition: Partition, command: GetSession, _step: Step) -> SessionViews:
    """Show one session; one that nothing is known of is shown as empty."""
    queue = _session_queue(partition, command.entity)
    return SessionViews((_view_of(queue, command.session_id),))


def on_browse(partition: Partition, command: Browse, step: Step) -> Browsed:
    """Show messages as they are, by rising number, whoever holds them (PEK-1 … PEK-7)."""
    queue = partition.queue(command.entity)
    check_between(command.max_messages, 1, partition.limits.receive_messages_max, "max_messages")
    if command.reason is not None and not command.dead_letter:
        raise InvalidRequest("Only dead letters have a reason to select by.")
    queue.activity.use(step.now_ms)
    wanted = command.max_messages
    if command.dead_letter:
        numbers = heapq.nsmallest(wanted + 1, _dead_letters(queue, command))
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
    deferred = tuple(place for place, s in enumerate(shown) if s in queue.deferred)
    return Browsed(delivered, scheduled, deferred, has_more=len(shown) < len(numbers))


def _dead_letters(queue: Queue, command: Browse) -> Iterator[int]:
    """Give the dead letters that are asked for; they have no sessions, but remember theirs (DLQ-4)."""
    selector = Selector(session_id=command.session_id, reason=command.reason)
    for sequence in queue.dead_order:
        info = queue.dead_info[sequence]
        if sequence >= command.from_sequence and selector.takes(
            sequence, info.reason, info.at_ms, queue.dead_sessions.get(sequence)
        ):
            yield sequence


def _numbers_of_session(queue: Queue, session_id: SessionId, first: int, most: int) -> list[int]:
    session = queue.sessions.get(session_id)
    active = session.active() if session is not None else array("q")
    start = bisect_left(active, first)
    found = active[start : start + most].tolist()
    if session is not None and (session.scheduled or session.deferred):
        aside = [s for s, m in queue.scheduled.items() if m.session_id == session_id]
        aside += [s for s, d in queue.deferred.items() if d.session_id == session_id]
        found = heapq.nsmallest(most, [*found, *(s for s in aside if s >= first)])
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


def _view_of(queue: Queue, session_id: SessionId) -> SessionView:
    session = queue.sessions.get(session_id) or Session(session_id, 0)
    oldest, next_one = session.oldest_active, session.oldest_deliverable
    delayed = session.delayed[0] if session.delayed else 0
    return SessionView(
        session_id=session.session_id,
        active=session.active_count,
        locked=session.in_hand_count + len(session.deferred_hand),
        scheduled=session.scheduled,
        deferred=session.deferred,
        dead_letters=queue.dead_in_session.get(session_id, 0),
        holder=session.holder,
        locked_until_ms=session.locked_until_ms,
        grant=session.grant,
        state_bytes=session.state_bytes,
        state_version=session.state_version,
        first_enqueued_ms=queue.log.enqueued_ms(oldest) if oldest else 0,
        oldest_deliverable_ms=queue.log.enqueued_ms(next_one) if next_one else 0,
        delayed_until_ms=queue.delays[delayed].until_ms if delayed else 0,
        address=session.address,
        granted_ms=session.granted_ms,
        renewals=session.renewals,
        last_loss=session.last_loss,
        released_ms=session.released_ms,
        state_set_ms=session.state_set_ms,
    )
