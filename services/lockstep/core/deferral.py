"""What a partition does with messages that receivers set aside (section 9 of the contract).

Here belongs the way of a message from its deferral to the receiver who asks for it by number. Never here: ordinary
delivery (`receiving`). The laws: a deferred message is delivered to nobody who does not name it (DEF-1), and delays
nobody (DEF-6); who receives it has it under a lock as any other message (DEF-3), and what comes back is deferred again;
a call for several gets all or none (DEF-2).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lockstep.core.aside import Deferred
from lockstep.core.changes import DeferredRow, Drop
from lockstep.core.commands import Outcome, ReceiveDeferred, Settlement
from lockstep.core.deadlines import Subject
from lockstep.core.entity import ON_RECEIVE, RECEIVING_FORBIDDEN
from lockstep.core.errors import InvalidOperation, MessageNotFound
from lockstep.core.expiring import collect, is_over
from lockstep.core.ids import GrantNumber
from lockstep.core.limits import check_at_most
from lockstep.core.locks import find_held, refuse_disabled
from lockstep.core.message import as_ranges, of_ranges
from lockstep.core.replies import DeadLetterInfo, DeferredExpired, Delivered, Short

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step
    from lockstep.core.session import Session


def defer(
    queue: Queue, sequences: Iterable[int], session: Session | None, step: Step, *, counts: bool
) -> None:
    """Set messages aside that are in no place; each counts as a failed delivery (DCN-2)."""
    for sequence in sequences:
        name = session.session_id if session is not None else None
        queue.deferred[sequence] = Deferred(name)
        if session is not None:
            session.deferred += 1
        step.changes.append(DeferredRow(queue.number, sequence, 0))
        if counts:
            queue.count_failure(sequence, "deferred", step)


def leave(queue: Queue, sequences: Iterable[int], step: Step) -> None:
    """Take messages out of those that are deferred; they are in no place then, or in the dead-letter store."""
    for sequence in sequences:
        deferred = queue.deferred.pop(sequence)
        if deferred.session_id is not None:
            session = queue.sessions[deferred.session_id]
            session.deferred -= 1
            session.deferred_hand.discard(sequence)
        step.changes.append(Drop(DeferredRow, (queue.number, sequence)))


def fail_or_put_back(queue: Queue, sequence: int, cause: str, why: str, step: Step) -> None:
    """Count a failed delivery of a deferred message; it is deferred again, or a dead letter (DEF-8)."""
    if queue.count_failure(sequence, cause, step):
        queue.defer_again(sequence, step)
    else:
        session_id = queue.deferred[sequence].session_id
        leave(queue, (sequence,), step)
        queue.exceed_delivery_count(sequence, session_id, why, step)


def end_hand(queue: Queue, session: Session, step: Step, *, why: str) -> None:
    """Let what a session's holder received of deferred messages be deferred again; `why` = "" counts nothing."""
    for sequence in sorted(session.deferred_hand):
        if why:
            fail_or_put_back(queue, sequence, "lock_expired", why, step)
        else:
            queue.defer_again(sequence, step)


def dead_letter_deferred(
    queue: Queue, sequences: Iterable[int], info: DeadLetterInfo, step: Step, *, cause: str
) -> None:
    """Let deferred messages be dead letters."""
    for sequence in sequences:
        session_id = queue.deferred[sequence].session_id
        leave(queue, (sequence,), step)
        queue.move_to_dead_letters((sequence,), info, session_id, step, cause=cause)


def settle_deferred(
    queue: Queue,
    taken: Sequence[int],
    settlement: Settlement,
    step: Step,
    *,
    dead_letter: bool,
    why: str,
) -> None:
    """Settle deferred messages that were in the receiver's hand, rising (DEF-3)."""
    match settlement.outcome:
        case Outcome.COMPLETE:
            leave(queue, taken, step)
            if dead_letter:
                queue.drop_dead_letters(taken, step)
            else:
                queue.forget(taken, step)
        case Outcome.DEAD_LETTER:
            info = DeadLetterInfo(settlement.reason, settlement.description, step.now_ms)
            dead_letter_deferred(queue, taken, info, step, cause="application")
        case Outcome.ABANDON if not dead_letter:
            for sequence in taken:
                fail_or_put_back(queue, sequence, "abandoned", why, step)
        case Outcome.DEFER:
            for sequence in taken:
                queue.defer_again(sequence, step)
                if not dead_letter:
                    queue.count_failure(sequence, "deferred", step)
        case _:
            for sequence in taken:
                queue.defer_again(sequence, step)


def on_receive_deferred(
    partition: Partition, command: ReceiveDeferred, step: Step
) -> Delivered | DeferredExpired:
    """Deliver deferred messages by number, all or none (DEF-2, DEF-3, DEF-5, DEF-9)."""
    queue = partition.queue(command.entity)
    session = _check(partition, queue, command)
    found = partition.repeated(command.request, command.fingerprint, "receive_deferred")
    if found is not None:
        if session is not None:
            session.hear_of_holder()
        partition.requests.note_repeat(command.request)
        return _again(queue, session, found, dead_letter=command.dead_letter)
    refuse_disabled(queue, RECEIVING_FORBIDDEN, "receiving from it")
    wanted = sorted(set(command.sequences))
    missing = [s for s in wanted if not _is_there(queue, s, session, command)]
    if missing:
        raise MessageNotFound(
            f"Message {missing[0]} of {queue.path} is not deferred here, or somebody has it ({len(missing)} of"
            f" {len(wanted)} are not there). Nothing was received.",
            details={"entity": queue.path, "sequence_number": str(missing[0])},
        )
    if session is not None:
        session.hear_of_holder()
    over = [s for s in wanted if not command.dead_letter and is_over(queue, s, step.now_ms)]
    if over:  # TTL-9
        leave(queue, over, step)
        for sequence in over:
            name = session.session_id if session is not None else None
            collect(queue, (sequence,), name, "it expired while it was deferred", sequence, step)
        if session is not None:
            queue.reindex(session, step)
        return DeferredExpired(tuple(over))
    return _deliver(partition, queue, session, array("q", wanted), command, step)


def _check(partition: Partition, queue: Queue, command: ReceiveDeferred) -> Session | None:
    most = partition.limits.receive_messages_max
    check_at_most(len(command.sequences), most, "messages in one call", "Ask for fewer.")
    sessions_needed = queue.definition.settings.requires_session and not command.dead_letter
    if sessions_needed != (command.session is not None):
        raise InvalidOperation(
            f"Deferred messages of {queue.path} are received {'under a' if sessions_needed else 'without a'} session's"
            " lock (DEF-5, DEF-9).",
            details={"entity": queue.path},
        )
    return find_held(partition, queue, command.session) if command.session is not None else None


def _is_there(
    queue: Queue, sequence: int, session: Session | None, command: ReceiveDeferred
) -> bool:
    deferred = queue.deferred.get(sequence)
    if deferred is None or deferred.grant:
        return False
    if (sequence in queue.dead_order) != command.dead_letter:
        return False
    return deferred.session_id == (session.session_id if session is not None else None)


def _deliver(
    partition: Partition,
    queue: Queue,
    session: Session | None,
    chosen: array[int],
    command: ReceiveDeferred,
    step: Step,
) -> Delivered:
    settings = queue.definition.settings
    until = step.now_ms + settings.lock_duration_ms
    if session is not None:
        if settings.session_lock_extension == ON_RECEIVE:
            session.renew(now_ms=step.now_ms, lock_duration_ms=settings.lock_duration_ms)
            queue.store_session(session, step)
        until, grant = session.locked_until_ms, GrantNumber(session.grant)
    else:
        grant = partition.next_grant() if chosen and not command.deletes else GrantNumber(0)
    delivered = queue.delivered(
        chosen,
        grant=0 if command.deletes else grant,
        locked_until_ms=until,
        short=Short.NO,
        dead_letter=command.dead_letter,
        is_final=True,
    )
    if not chosen:
        return delivered
    result: tuple[object, ...] = ("receive_deferred", None, 0, ())
    if command.deletes:
        leave(queue, chosen, step)
        if command.dead_letter:
            queue.drop_dead_letters(chosen, step)
        else:
            queue.forget(chosen, step)
        step.count(queue, "received_and_deleted", "", len(chosen))
    else:
        for sequence in chosen:
            queue.deferred[sequence].grant = grant
            step.changes.append(DeferredRow(queue.number, sequence, grant))
        if session is not None:
            session.deferred_hand.update(chosen)
        else:
            store = queue.plain(dead_letter=command.dead_letter)
            store.hold(grant, dict.fromkeys(chosen, until))
            queue.store_lock(grant, step, dead_letter=command.dead_letter)
            partition.deadlines.add(until, Subject("lock", queue.number, "", grant))
            step.count(queue, "locks_granted", "message", len(chosen))
        name = session.session_id if session is not None else None
        result = ("receive_deferred", name, grant, as_ranges(chosen))
    step.count(queue, "delivered", "redelivery", len(chosen))
    partition.remember(command.request, command.fingerprint, result, step)
    return delivered


def _again(
    queue: Queue, session: Session | None, found: tuple[object, ...], *, dead_letter: bool
) -> Delivered:
    """Answer a repeat with what is still in hand of the first answer (ADD-3)."""
    grant, ranges = found[2], found[3]
    assert isinstance(grant, int)
    mine = array(
        "q",
        (
            sequence
            for sequence in of_ranges(ranges)  # type: ignore[arg-type]
            if sequence in queue.deferred and queue.deferred[sequence].grant == grant != 0
        ),
    )
    until = session.locked_until_ms if session is not None else 0
    if session is None and mine:
        queue.graced.discard(grant)  # its receiver is back (ADD-4)
        held = queue.plain(dead_letter=dead_letter).grants[grant]
        until = min(held[sequence] for sequence in mine)
    return queue.delivered(
        mine,
        grant=grant if mine else 0,
        locked_until_ms=until,
        short=Short.NO,
        dead_letter=dead_letter,
        is_final=True,
    )
