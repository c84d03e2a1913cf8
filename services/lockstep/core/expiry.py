"""What happens by time.

Here belong the ends of locks and of remembered requests. Never here: a clock. The laws: the broker's
clock decides, once (RACE-1, RACE-3, RACE-4); a lock that ran out counts one failed delivery for each
message in hand, unless an outage kept its holder away (DCN-4, ADD-4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lockstep.core.commands import Tick
from lockstep.core.deadlines import Subject
from lockstep.core.decision import Wake
from lockstep.core.deferral import end_hand, fail_or_put_back
from lockstep.core.delaying import look_at_delay
from lockstep.core.duplicates import forget_ids
from lockstep.core.expiring import expire_in_session, look_again, return_or_expire
from lockstep.core.idling import look_at_queue, look_at_seal, look_at_state
from lockstep.core.ids import SessionId
from lockstep.core.locks import EXPIRED, GRACE_ENDED
from lockstep.core.replies import Ticked
from lockstep.core.scheduling import activate

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step
    from lockstep.core.session import Session

_SESSION_EXPIRED = "the session's lock ran out"
_MESSAGE_EXPIRED = "the message's lock ran out"


def on_tick(partition: Partition, command: Tick, step: Step) -> Ticked:
    """Do what has become due: everything, or as much as the command allows."""
    for subject in partition.deadlines.pop_due(step.now_ms, command.subjects_max):
        _LOOKS[subject.kind](partition, subject, step)
    return Ticked()


def _look_at_client(partition: Partition, subject: Subject, step: Step) -> None:
    changes, again_ms = partition.requests.watch(subject.name, step.now_ms)
    step.changes.extend(changes)
    if again_ms is not None:
        partition.deadlines.add(again_ms, subject)


def _look_at_session(partition: Partition, subject: Subject, step: Step) -> None:
    queue = partition.queues_by_number.get(subject.entity)
    session = queue.sessions.get(SessionId(subject.name)) if queue else None
    if queue is None or session is None or not session.is_held or session.grant != subject.grant:
        return
    if session.locked_until_ms > step.now_ms:
        partition.deadlines.add(session.locked_until_ms, subject)
        return
    _expire_session(partition, queue, session, step)


def _expire_session(partition: Partition, queue: Queue, session: Session, step: Step) -> None:
    cause = GRACE_ENDED if session.grace else EXPIRED
    partition.note_loss(session, step.now_ms, cause)
    counts = not session.grace
    held_ms = step.now_ms - session.granted_ms
    end_hand(queue, session, step, why=_SESSION_EXPIRED if counts else "")
    hand = session.release(turn=queue.next_turn(), now_ms=step.now_ms, cause=cause)
    queue.held_count -= 1
    if counts:
        exceeded = [s for s in hand if not queue.count_failure(s, "lock_expired", step)]
        if exceeded:
            session.remove(exceeded)
        for sequence in exceeded:
            queue.exceed_delivery_count(sequence, session.session_id, _SESSION_EXPIRED, step)
    expire_in_session(queue, session, step)
    queue.store_session(session, step)
    queue.reindex(session, step)
    step.wake[Wake(queue.number, session.session_id, lost=True)] = None
    step.count(queue, "locks_released", f"session:{cause}")
    step.count(queue, "session_held_ms", cause, held_ms)


def _look_at_lock(partition: Partition, subject: Subject, step: Step) -> None:
    queue = partition.queues_by_number.get(subject.entity)
    if queue is None:
        return
    dead_letter = subject.grant in queue.dead.grants
    store = queue.plain(dead_letter=dead_letter)
    held = store.grants.get(subject.grant)
    if held is None:
        return
    expired = [sequence for sequence, until in held.items() if until <= step.now_ms]
    cause = GRACE_ENDED if subject.grant in queue.graced else EXPIRED
    counts = not dead_letter and cause == EXPIRED  # DCN-9, ADD-4
    for sequence in expired:
        store.unlock(subject.grant, sequence)
        if counts and sequence in queue.deferred:
            fail_or_put_back(queue, sequence, "lock_expired", _MESSAGE_EXPIRED, step)
        elif counts and not queue.count_failure(sequence, "lock_expired", step):
            queue.exceed_delivery_count(sequence, None, _MESSAGE_EXPIRED, step)
        else:
            return_or_expire(queue, store, sequence, step)
    if held:
        partition.deadlines.add(min(held.values()), subject)
    if expired:
        queue.store_lock(subject.grant, step, dead_letter=dead_letter)
        step.count(queue, "locks_released", f"message:{cause}", len(expired))
        step.wake[Wake(queue.number, dead_letter=dead_letter)] = None


_LOOKS: dict[str, Callable[[Partition, Subject, Step], None]] = {
    "session": _look_at_session,
    "lock": _look_at_lock,
    "delay": look_at_delay,
    "schedule": activate,
    "expiring": look_again,
    "duplicates": forget_ids,
    "state": look_at_state,
    "idle": look_at_queue,
    "sealed": look_at_seal,
    "client": _look_at_client,
}
