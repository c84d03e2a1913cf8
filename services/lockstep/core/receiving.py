"""What a partition does when sessions are accepted and messages are received.

Here belong accept, receive, renewal, release and the undoing of calls whose reply was lost (sections
4.1, 5.2, 5.3 and 6.2 of the contract). Never here: waiting (`owner.waiters`). The laws: accepting a
session locks no message (BAT-3); a receive hands over everything that is there, up to its limits
(BAT-2); one receive never spans sessions (BAT-7).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from lockstep.core.commands import (
    Accept,
    BreakLock,
    Receive,
    ReleaseSession,
    RenewMessages,
    RenewSession,
)
from lockstep.core.deadlines import Subject
from lockstep.core.decision import Wake
from lockstep.core.deferral import end_hand
from lockstep.core.entity import DISABLED, ON_RECEIVE, RECEIVING_FORBIDDEN
from lockstep.core.errors import InvalidOperation, SessionCannotBeLocked
from lockstep.core.expiring import expire_in_session, ready_messages
from lockstep.core.ids import GrantNumber, SessionLock
from lockstep.core.limits import ID_CHARS_MAX, check_at_most, check_between
from lockstep.core.locks import (
    BROKEN,
    CLOSED,
    find_held,
    message_lock_lost,
    refuse_disabled,
    time_text,
)
from lockstep.core.message import as_ranges, of_ranges
from lockstep.core.replies import (
    Accepted,
    Delivered,
    LockBroken,
    NoneAvailable,
    NotSettled,
    Released,
    Renewed,
    Short,
)
from lockstep.core.requests import NOTHING
from lockstep.core.session import Session

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step

_ORDER_CHECKED_EVERY = 127  # deliveries, about; a prime, so that no size of batches is left out

# --- accept ------------------------------------------------------------------------------------------


def on_accept(partition: Partition, command: Accept, step: Step) -> Accepted | NoneAvailable:
    """Grant a session: the named one (SES-7, SES-8) or the next runnable one (SES-9, SES-13)."""
    queue = partition.queue(command.entity)
    found = partition.repeated(command.request, command.fingerprint, "accept")
    if found is not None and found[0] == NOTHING:
        return NoneAvailable(queue.number, is_final=True)
    if found is not None:
        accepted = _accepted_before(partition, queue, found)
        partition.requests.note_repeat(command.request)
        return accepted
    _check_accept(queue, command)
    if command.session_id is None:
        queue.activity.use(step.now_ms)
        runnable = _next_runnable(queue, step)
        if runnable is None:
            partition.requests.note_waiting(command.request, step.now_ms)
            return NoneAvailable(queue.number)
        session = runnable
    else:
        existing = queue.sessions.get(command.session_id)
        if existing is not None and existing.is_held:
            raise _held(queue, existing)
        queue.activity.use(step.now_ms)
        session = queue.session(command.session_id)
        expire_in_session(queue, session, step)

    if session.active_count:
        since_ms = max(session.released_ms, queue.log.enqueued_ms(session.oldest_active))
        step.count(queue, "session_waited_ms", "", step.now_ms - since_ms)
    session.grant_to(
        command.holder,
        grant=partition.next_grant(),
        now_ms=step.now_ms,
        lock_duration_ms=queue.definition.settings.lock_duration_ms,
        address=command.address,
    )
    queue.held_count += 1
    queue.reindex(session, step)
    queue.store_session(session, step)
    partition.deadlines.add(
        session.locked_until_ms, Subject("session", queue.number, session.session_id, session.grant)
    )
    step.count(queue, "accepts", "granted")
    step.count(queue, "locks_granted", "session")
    result = ("accept", session.session_id, session.grant)
    partition.remember(command.request, command.fingerprint, result, step)
    return _accepted(queue, session)


def _next_runnable(queue: Queue, step: Step) -> Session | None:
    """Return the session that accept-next hands out, after what has expired is gone (TTL-7)."""
    while (session := queue.next_runnable()) is not None:
        expire_in_session(queue, session, step)
        if session.is_runnable:
            return session
        queue.reindex(session, step)
    return None


def _check_accept(queue: Queue, command: Accept) -> None:
    settings = queue.definition.settings
    refuse_disabled(queue, RECEIVING_FORBIDDEN, "receiving from it")
    if not settings.requires_session:
        raise InvalidOperation(
            f"{queue.path} has no sessions. Receive from it without one, or create it with requires_session"
            " (RCV-3).",
            details={"entity": queue.path},
        )
    if command.session_id is None and settings.accept_next == DISABLED:
        raise InvalidOperation(
            f"{queue.path} does not hand out the next available session (accept_next is disabled). Name the session.",
            details={"entity": queue.path},
        )
    check_at_most(
        len(command.session_id or ""), ID_CHARS_MAX, "session id characters", "Use a shorter id."
    )
    check_at_most(
        len(command.holder), ID_CHARS_MAX, "holder client id characters", "Use a shorter id."
    )


def _held(queue: Queue, session: Session) -> SessionCannotBeLocked:
    holder = f"'{session.holder}'" if session.holder else "a receiver without a name"
    return SessionCannotBeLocked(
        f"Session '{session.session_id}' of {queue.path} is held by {holder} until"
        f" {time_text(session.locked_until_ms)}. Try again later, or accept another session.",
        details={
            "entity": queue.path,
            "session_id": session.session_id,
            "holder": session.holder,
            "locked_until_ms": str(session.locked_until_ms),
            "grant": str(session.grant),
        },
    )


def _accepted(queue: Queue, session: Session) -> Accepted:
    return Accepted(
        session=SessionLock(session.session_id, GrantNumber(session.grant)),
        locked_until_ms=session.locked_until_ms,
        has_state=session.state_bytes is not None,
        state_version=session.state_version,
        entity=queue.number,
    )


def _accepted_before(partition: Partition, queue: Queue, found: tuple[Any, ...]) -> Accepted:
    session = find_held(partition, queue, SessionLock(found[1], found[2]))
    session.hear_of_holder()
    return _accepted(queue, session)


# --- receive -----------------------------------------------------------------------------------------


def on_receive(partition: Partition, command: Receive, step: Step) -> Delivered:
    """Deliver what is there, up to the limits (BAT-1, BAT-2, BAT-6); possibly nothing."""
    queue = partition.queue(command.entity)
    _check_receive(partition, queue, command)
    session = find_held(partition, queue, command.session) if command.session is not None else None
    found = partition.repeated(command.request, command.fingerprint, "receive")
    if found is None:
        refuse_disabled(queue, RECEIVING_FORBIDDEN, "receiving from it")
    queue.activity.use(step.now_ms)
    if session is not None:
        session.hear_of_holder()
    if found is not None:
        partition.requests.note_repeat(command.request)
        return _received_before(queue, found, session)
    if session is not None:
        return _receive_session(partition, queue, session, command, step)
    return _receive_plain(partition, queue, command, step)


def _check_receive(partition: Partition, queue: Queue, command: Receive) -> None:
    sessions_needed = queue.definition.settings.requires_session and not command.dead_letter
    if sessions_needed and command.session is None:
        raise InvalidOperation(
            f"{queue.path} requires sessions: accept one before receiving (RCV-3).",
            details={"entity": queue.path},
        )
    if not sessions_needed and command.session is not None:
        where = "The dead-letter store of " if command.dead_letter else ""
        raise InvalidOperation(
            f"{where}{queue.path} has no sessions: receive without one (RCV-3, DLQ-4).",
            details={"entity": queue.path},
        )
    check_between(command.max_messages, 1, partition.limits.receive_messages_max, "max_messages")


def _receive_session(
    partition: Partition, queue: Queue, session: Session, command: Receive, step: Step
) -> Delivered:
    settings = queue.definition.settings
    expire_in_session(queue, session, step)
    chosen, short = _fitting(
        partition, queue, session.peek_deliverable(command.max_messages), command
    )
    extends = settings.session_lock_extension == ON_RECEIVE
    if extends:
        session.renew(now_ms=step.now_ms, lock_duration_ms=settings.lock_duration_ms)
    delivered = queue.delivered(
        chosen,
        grant=0 if command.deletes else session.grant,
        locked_until_ms=session.locked_until_ms,
        short=short,
        dead_letter=False,
    )
    if chosen:
        queue.activity.deliver(step.now_ms, session.holder)
        again = bisect_right(chosen, session.cursor) if session.cursor else 0
        if chosen[-1] % _ORDER_CHECKED_EVERY == 0 and (wrong := session.misordered(chosen)):
            step.count(queue, "order_violations", "", wrong)
        session.deliver(chosen)
        _count_deliveries(queue, chosen, again, step)
        if command.deletes:
            session.remove(chosen)
            _gone(partition, queue, chosen, command, step)
        else:
            result = ("receive", session.session_id, session.grant, as_ranges(chosen))
            partition.remember(command.request, command.fingerprint, result, step)
    else:
        partition.requests.note_waiting(command.request, step.now_ms)
    if chosen or extends:
        queue.store_session(session, step)
    return delivered


def _receive_plain(partition: Partition, queue: Queue, command: Receive, step: Step) -> Delivered:
    store = queue.plain(dead_letter=command.dead_letter)
    most = command.max_messages
    ready = (
        store.peek_ready(most)
        if command.dead_letter
        else ready_messages(partition, queue, store, most, step)
    )
    chosen, short = _fitting(partition, queue, ready, command)
    if not chosen:
        partition.requests.note_waiting(command.request, step.now_ms)
        return queue.delivered(chosen, grant=0, locked_until_ms=0, short=short, dead_letter=False)
    queue.activity.deliver(step.now_ms, command.receiver)
    if command.deletes:
        delivered = queue.delivered(
            chosen, grant=0, locked_until_ms=0, short=short, dead_letter=command.dead_letter
        )
        _count_deliveries(queue, chosen, 0, step)
        store.skip(chosen, set(chosen))
        _gone(partition, queue, sorted(chosen), command, step)
        return delivered
    grant = partition.next_grant()
    until = step.now_ms + queue.definition.settings.lock_duration_ms
    store.lock(chosen, grant=grant, locked_until_ms=until)
    queue.store_lock(grant, step, dead_letter=command.dead_letter)
    partition.deadlines.add(until, Subject("lock", queue.number, "", grant))
    step.count(queue, "locks_granted", "message", len(chosen))
    _count_deliveries(queue, chosen, 0, step)
    partition.remember(
        command.request, command.fingerprint, ("receive", None, grant, as_ranges(chosen)), step
    )
    return queue.delivered(
        chosen, grant=grant, locked_until_ms=until, short=short, dead_letter=command.dead_letter
    )


def _gone(
    partition: Partition, queue: Queue, chosen: Sequence[int], command: Receive, step: Step
) -> None:
    """Forget messages that are delivered for good (RCV-1); a repeat of the call finds nothing."""
    if command.dead_letter:
        queue.drop_dead_letters(chosen, step)
    else:
        queue.forget(chosen, step)
    step.count(queue, "received_and_deleted", "", len(chosen))
    partition.remember(command.request, command.fingerprint, ("receive", None, 0, ()), step)


def _fitting(
    partition: Partition, queue: Queue, candidates: array[int], command: Receive
) -> tuple[array[int], Short]:
    """Cut the candidates to the size of a response; at least one always goes (BAT-6)."""
    described = queue.log.describe(candidates)
    loadable = queue.log.loadable(described, partition.limits.load_bytes_max)
    if loadable < len(candidates):
        return candidates[:loadable], Short.RESPONSE_SIZE
    sizes = queue.sizes(candidates, described, dead_letter=command.dead_letter)
    most = partition.limits.response_bytes_max
    if sum(sizes) > most:
        fitting = max(1, bisect_right(list(accumulate(sizes)), most))
        if fitting < len(candidates):
            return candidates[:fitting], Short.RESPONSE_SIZE
    if len(candidates) < command.max_messages:
        return candidates, Short.NO_MORE_MESSAGES
    return candidates, Short.NO


def _count_deliveries(queue: Queue, chosen: array[int], again: int, step: Step) -> None:
    """Note deliveries for metrics; `again` of a session's messages were delivered under this grant before."""
    redelivered = again
    if queue.counts:
        redelivered = max(again, sum(1 for sequence in chosen if sequence in queue.counts))
    if redelivered:
        step.count(queue, "delivered", "redelivery", redelivered)
    if redelivered < len(chosen):
        step.count(queue, "delivered", "first", len(chosen) - redelivered)


def _received_before(queue: Queue, found: tuple[Any, ...], session: Session | None) -> Delivered:
    """Answer a repeated receive with what is still locked of its first answer (ADD-3)."""
    if found[0] == NOTHING:
        until = session.locked_until_ms if session is not None else 0
        return _final(queue, array("q"), 0, until, dead_letter=False)
    _, session_id, grant, ranges = found
    if session is not None and session.grant == grant and session.session_id == session_id:
        mine = array("q", (s for s in of_ranges(ranges) if session.is_in_hand(s)))
        return _final(queue, mine, grant, session.locked_until_ms, dead_letter=False)
    dead_letter = grant in queue.dead.grants
    queue.graced.discard(grant)  # its receiver is back (ADD-4)
    held = queue.plain(dead_letter=dead_letter).grants.get(grant, {})
    mine = array("q", (s for s in of_ranges(ranges) if s in held))
    until = min((held[s] for s in mine), default=0)
    return _final(queue, mine, grant, until, dead_letter=dead_letter)


def _final(
    queue: Queue, sequences: array[int], grant: int, locked_until_ms: int, *, dead_letter: bool
) -> Delivered:
    delivered = queue.delivered(
        sequences,
        grant=grant,
        locked_until_ms=locked_until_ms,
        short=Short.NO_MORE_MESSAGES if grant == 0 else Short.NO,
        dead_letter=dead_letter,
    )
    return replace(delivered, is_final=True)


# --- renew -------------------------------------------------------------------------------------------


def on_renew_session(partition: Partition, command: RenewSession, step: Step) -> Renewed:
    """Move a session's lock to now + lock duration (SES-18); an ended lock stays ended (RACE-3)."""
    queue = partition.queue(command.entity)
    session = find_held(partition, queue, command.session)
    session.renew(now_ms=step.now_ms, lock_duration_ms=queue.definition.settings.lock_duration_ms)
    session.renewals += 1
    queue.store_session(session, step)
    step.count(queue, "lock_renewals", "session")
    return Renewed(session.locked_until_ms)


def on_renew_messages(partition: Partition, command: RenewMessages, step: Step) -> Renewed:
    """Move message locks to now + lock duration; a message of a session has none of its own (SES-19)."""
    queue = partition.queue(command.entity)
    if queue.definition.settings.requires_session and not command.dead_letter:
        raise InvalidOperation(
            f"{queue.path} requires sessions: renew the lock of the session, not of a message (SES-19).",
            details={"entity": queue.path},
        )
    check_at_most(
        len(command.tokens),
        partition.limits.settle_messages_max,
        "messages in one call",
        "Renew fewer.",
    )
    store = queue.plain(dead_letter=command.dead_letter)
    until = step.now_ms + queue.definition.settings.lock_duration_ms
    failures = []
    grants: dict[GrantNumber, None] = {}
    for grant, sequence in command.tokens:
        if store.is_locked(grant, sequence):
            store.renew(grant, sequence, until)
            grants[grant] = None
        else:
            failures.append(
                NotSettled(grant, sequence, message_lock_lost(partition, queue, grant, sequence))
            )
    for renewed in grants:
        queue.graced.discard(renewed)
        queue.store_lock(renewed, step, dead_letter=command.dead_letter)
    step.count(queue, "lock_renewals", "message", len(command.tokens) - len(failures))
    step.count(queue, "lock_renewals", "message:lost", len(failures))
    return Renewed(until, tuple(failures))


# --- release -----------------------------------------------------------------------------------------


def on_release_session(partition: Partition, command: ReleaseSession, step: Step) -> Released:
    """Give a session back at once; nothing is counted (DCN-4, SES-20, SES-32)."""
    queue = partition.queue(command.entity)
    found = partition.repeated(command.request, command.fingerprint, "release")
    if found is not None:
        return Released(found[1])
    session = find_held(partition, queue, command.session)
    returned = close_session(partition, queue, session, step, cause=CLOSED)
    partition.remember(command.request, command.fingerprint, ("release", returned), step)
    return Released(returned)


def on_break_lock(partition: Partition, command: BreakLock, step: Step) -> LockBroken:
    """End a session's lock as a close, whoever holds it (ADD-5)."""
    queue = partition.queue(command.entity)
    found = partition.repeated(command.request, command.fingerprint, "break_lock")
    if found is not None:
        return LockBroken(found[1], found[2], found[3])
    check_at_most(len(command.by), ID_CHARS_MAX, "characters of who asks", "Use a shorter name.")
    session = queue.sessions.get(command.session_id)
    if session is None or not session.is_held:
        return LockBroken(was_held=False, holder="", returned=0)
    holder = session.holder
    returned = close_session(partition, queue, session, step, cause=BROKEN, by=command.by)
    result = ("break_lock", True, holder, returned)
    partition.remember(command.request, command.fingerprint, result, step)
    return LockBroken(was_held=True, holder=holder, returned=returned)


def close_session(
    partition: Partition, queue: Queue, session: Session, step: Step, *, cause: str, by: str = ""
) -> int:
    """End a session's lock without counting, and return how many messages went back."""
    partition.losses.note(session.grant, cause, step.now_ms, by)
    held_ms = step.now_ms - session.granted_ms
    end_hand(queue, session, step, why="")
    hand = session.release(turn=queue.next_turn(), now_ms=step.now_ms, cause=cause)
    queue.held_count -= 1
    expire_in_session(queue, session, step)
    queue.store_session(session, step)
    queue.reindex(session, step)
    step.wake[Wake(queue.number, session.session_id, lost=True)] = None
    step.count(queue, "locks_released", f"session:{cause}")
    step.count(queue, "session_held_ms", cause, held_ms)
    return len(hand)
