"""What a partition shows of itself.

Here belong reads that lock nothing and change nothing (SES-53). Never here: anything that writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockstep.core.commands import GetRuntime, GetSession, ListSessions
from lockstep.core.errors import InvalidOperation
from lockstep.core.ids import EntityKey, SessionId
from lockstep.core.replies import Runtime, SessionView, SessionViews
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
        locked = sum(s.in_hand_count for s in queue.sessions.values() if s.is_held)
    else:
        locked = queue.main.locked_count
    dead_letters = len(queue.dead_info)
    return Runtime(
        active=queue.log.count - dead_letters - len(queue.scheduled),
        scheduled=len(queue.scheduled),
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
        locked=session.in_hand_count,
        holder=session.holder,
        locked_until_ms=session.locked_until_ms,
        grant=session.grant,
        state_bytes=session.state_bytes,
        state_version=session.state_version,
    )
