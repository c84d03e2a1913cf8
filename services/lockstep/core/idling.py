"""What a partition does with states and queues that nobody uses (SES-44, section 16.3 of the contract).

Here belongs when a state or a queue has been idle for long enough, and the purge of states by hand. Never here: a
clock. The laws: a state goes only while nobody holds its session and no message is in it; a queue goes only while it
has no holder, no locked message and nothing scheduled, and with everything in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockstep.core.catalogue import forget_queue
from lockstep.core.changes import Drop, StateRow
from lockstep.core.commands import ClearStates, ForgetIdle, ListIdle, SealIdle, Unseal
from lockstep.core.deadlines import Subject
from lockstep.core.errors import InvalidOperation, SessionCannotBeLocked
from lockstep.core.ids import SessionId
from lockstep.core.limits import check_between
from lockstep.core.replies import IdleAre, IdleIs, StatesCleared

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step
    from lockstep.core.session import Session

_CLEARED_AT_ONCE_MAX = 1000
_SEALED_MS_MAX = 60_000


# --- states ------------------------------------------------------------------------------------------


def is_state_only(session: Session) -> bool:
    """Whether a session has nothing but a state, and nobody holds it."""
    return (
        session.state_bytes is not None
        and not session.is_held
        and not session.active_count
        and not session.scheduled
        and not session.deferred
    )


def idle_since_ms(session: Session) -> int:
    """Return since when nothing happened to a session with a state only."""
    return max(session.state_set_ms, session.released_ms)


def watch_state(
    partition: Partition,
    queue: Queue,
    session: Session,
    now_ms: int,
    *,
    setting_changed: bool = False,
) -> None:
    """Look at a session's state when it may have been idle for long enough.

    Once is enough, unless that time may be too late: the queue's setting changed.
    """
    ttl_ms = queue.definition.settings.session_state_idle_ttl_ms
    if ttl_ms is not None and session.state_bytes is not None:
        subject = Subject("state", queue.number, session.session_id)
        add = partition.deadlines.add if setting_changed else partition.deadlines.add_once
        add(max(idle_since_ms(session) + ttl_ms, now_ms + 1), subject)


def look_at_state(partition: Partition, subject: Subject, step: Step) -> None:
    """Clear the state of a session that has been idle for long enough, or look again later."""
    queue = partition.queues_by_number.get(subject.entity)
    session = queue.sessions.get(SessionId(subject.name)) if queue is not None else None
    if queue is None or session is None:
        return
    ttl_ms = queue.definition.settings.session_state_idle_ttl_ms
    if ttl_ms is None or session.state_bytes is None:
        return
    if not is_state_only(session):
        partition.deadlines.add_once(step.now_ms + ttl_ms, subject)
    elif idle_since_ms(session) + ttl_ms > step.now_ms:
        partition.deadlines.add_once(idle_since_ms(session) + ttl_ms, subject)
    else:
        clear_state(partition, queue, session, step)
        step.count(queue, "states_cleared", "idle")


def clear_state(partition: Partition, queue: Queue, session: Session, step: Step) -> None:
    """Let a session have no state."""
    queue.states_bytes -= session.state_bytes or 0
    queue.states_count -= session.state_bytes is not None
    session.state_bytes = None
    session.state_version = partition.next_state_version()
    session.state_set_ms = step.now_ms
    step.changes.append(Drop(StateRow, (queue.number, session.session_id)))
    queue.store_session(session, step)
    queue.reindex(session, step)


def on_clear_states(partition: Partition, command: ClearStates, step: Step) -> StatesCleared:
    """Clear the state of one session, or of those that have nothing else and were idle for so long (SES-44)."""
    queue = partition.queue(command.entity)
    if not queue.definition.settings.requires_session:
        raise InvalidOperation(f"{queue.path} has no sessions.", details={"entity": queue.path})
    check_between(command.maximum, 1, _CLEARED_AT_ONCE_MAX, "maximum")
    if command.session_id is not None:
        found = _one(queue, command.session_id)
    else:
        before_ms = step.now_ms - command.idle_ms
        found = []
        for session in queue.sessions.values():
            if is_state_only(session) and idle_since_ms(session) <= before_ms:
                found.append(session)
                if len(found) > command.maximum:
                    break
    for session in found[: command.maximum]:
        clear_state(partition, queue, session, step)
    cleared = min(len(found), command.maximum)
    step.count(queue, "states_cleared", "administrator", cleared)
    return StatesCleared(cleared, has_more=len(found) > cleared)


def _one(queue: Queue, session_id: SessionId) -> list[Session]:
    session = queue.sessions.get(session_id)
    if session is None or session.state_bytes is None:
        return []
    if session.is_held:
        raise SessionCannotBeLocked(
            f"Session '{session_id}' of {queue.path} is held by '{session.holder}', who may rely on its state. Nothing"
            " was cleared. Wait, or break its lock first.",
            details={"entity": queue.path, "session_id": session_id, "holder": session.holder},
        )
    return [session]


# --- queues ------------------------------------------------------------------------------------------


def watch_queue(partition: Partition, queue: Queue) -> None:
    """Look at a queue when it may have been idle for long enough.

    Where there are more partitions, the use of this one tells too little: who can ask all of them asks `ListIdle`.
    """
    ttl_ms = queue.definition.settings.auto_delete_on_idle_ms
    if ttl_ms is not None and partition.catalogue is not None and partition.partitions == 1:
        partition.deadlines.add(queue.activity.used_ms + ttl_ms, Subject("idle", queue.number))


def look_at_queue(partition: Partition, subject: Subject, step: Step) -> None:
    """Delete a queue that has been idle for long enough, or look again later."""
    queue = partition.queues_by_number.get(subject.entity)
    due_ms = _idle_at_ms(queue, step.now_ms) if queue is not None else None
    if queue is None or due_ms is None:
        return
    if due_ms > step.now_ms:
        partition.deadlines.add(due_ms, subject)
        return
    queue.is_going = forget_queue(partition, queue, step)


def _idle_at_ms(queue: Queue, now_ms: int) -> int | None:
    """Return when a queue will have been idle for long enough, as far as is seen here; None = it may be for ever."""
    ttl_ms = queue.definition.settings.auto_delete_on_idle_ms
    if ttl_ms is None:
        return None
    if queue.held_count or queue.main.locked_count or queue.dead.locked_count or queue.scheduled:
        queue.activity.use(now_ms)
    return queue.activity.used_ms + ttl_ms


# --- queues on several partitions --------------------------------------------------------------------


def on_list_idle(partition: Partition, _command: ListIdle, step: Step) -> IdleAre:
    """Show the queues that could be deleted, as far as is seen here (section 16.3)."""
    return IdleAre(tuple(q.number for q in partition.queues.values() if _is_idle(q, step.now_ms)))


def on_seal_idle(partition: Partition, command: SealIdle, step: Step) -> IdleIs:
    """Refuse uses of a queue for a moment, if there was none for long enough, or if nothing is in it."""
    check_between(command.for_ms, 1, _SEALED_MS_MAX, "for_ms")
    queue = partition.queues_by_number.get(command.entity)
    if queue is None:
        return IdleIs(is_idle=True)
    may_go = _is_empty(queue) if command.if_empty else _is_idle(queue, step.now_ms)
    if not may_go:
        return IdleIs(is_idle=False)
    queue.is_sealed = True
    partition.deadlines.add(step.now_ms + command.for_ms, Subject("sealed", queue.number))
    return IdleIs(is_idle=True)


def on_unseal(partition: Partition, command: Unseal, _step: Step) -> IdleIs:
    """Take uses of a queue again."""
    queue = partition.queues_by_number.get(command.entity)
    if queue is not None:
        queue.is_sealed = False
    return IdleIs(is_idle=queue is None)


def look_at_seal(partition: Partition, subject: Subject, _step: Step) -> None:
    """Take uses of a queue again that was to be deleted, and was not."""
    queue = partition.queues_by_number.get(subject.entity)
    if queue is not None:
        queue.is_sealed = False


def on_forget_idle(partition: Partition, command: ForgetIdle, step: Step) -> IdleIs:
    """Remove a queue from the catalogue, while it is sealed here and so, sealed later, everywhere."""
    queue = partition.queues_by_number.get(command.entity)
    if queue is None or not queue.is_sealed or queue.is_going:
        return IdleIs(is_idle=False)
    queue.is_going = forget_queue(partition, queue, step)
    return IdleIs(is_idle=queue.is_going)


def _is_idle(queue: Queue, now_ms: int) -> bool:
    at_ms = _idle_at_ms(queue, now_ms)
    return at_ms is not None and at_ms <= now_ms


def _is_empty(queue: Queue) -> bool:
    """Whether there is no message in any state, no dead letter and no session state (ADD-13)."""
    return not queue.log.count and not queue.states_count
