"""What receivers get (sections 4.1, 6.2 and 9 of the contract)."""

from __future__ import annotations

from lockstep.core.commands import Receive, ReceiveDeferred
from lockstep.core.entity import RECEIVING_FORBIDDEN
from tests.sim.case import Case
from tests.sim.rows import Place, Where
from tests.sim.rules.expiry import deliverable


def judge_receive(case: Case) -> None:
    """Check that a receive gets everything that is there, in order, and nothing that has expired (BAT-2, I-8)."""
    command = case.command
    assert isinstance(command, Receive)
    entity = case.entity()
    if entity < 0:
        return
    _judge_status(case, entity)
    session_id, grant, ranges = case.result
    if command.session is not None:
        place = (entity, str(command.session.session_id))
        _judge_holder(case, place, command.session.grant)
        wanted = deliverable(case, place)[: command.max_messages]
        case.looked.add(place)
    else:
        place = None
        wanted = case.book.ready(entity, dead_letter=command.dead_letter)
        if not command.dead_letter:
            messages = case.book.messages
            wanted = [s for s in wanted if not messages[entity, s].is_over(case.now_ms)]
        wanted = wanted[: command.max_messages]
    case.check(wanted, "BAT-1: nothing was there", command)
    if command.deletes:
        case.check([session_id, grant, ranges] == [None, 0, []], "RCV-1: kept", case.result)
        taken: list[Where] = [(entity, sequence) for sequence in wanted]
        case.gone.update(taken)
        case.memory.taken[case.call_key] = taken
        return
    sequences = [s for low, high in ranges for s in range(low, high + 1)]
    case.check(sequences == wanted, "SES-27, BAT-2: delivered", sequences, "not", wanted)
    if place is not None:
        case.check(command.session == (session_id, grant), "I-4: received under", session_id, grant)
        case.hand(place).update(wanted)
    else:
        _judge_lock(case, entity, grant, sequences, dead_letter=command.dead_letter)


def _judge_status(case: Case, entity: int) -> None:
    status = case.settings(entity).status
    case.check(status not in RECEIVING_FORBIDDEN, "16.1: received from a queue that is", status)


def _judge_holder(case: Case, place: Place, grant: int) -> None:
    row = case.book.sessions.get(place)
    is_held = row is not None and row.locked_until_ms and row.grant == grant
    case.check(is_held, "I-4: received under", place, grant, row)


def _judge_lock(
    case: Case, entity: int, grant: int, sequences: list[int], *, dead_letter: bool
) -> None:
    """RCV-4: what is received is under a new lock, and under no other."""
    is_new = grant > case.book.partition.last_grant
    case.check(is_new, "SES-26: an old grant number", grant)
    row = case.step.locks.get((entity, grant))
    case.check(row is not None, "RCV-4: received without a lock", grant)
    if row is not None:
        held = sorted(case.book.locked(entity, grant, row))
        is_right = held == sorted(sequences) and bool(row.dead_letter) == dead_letter
        case.check(is_right, "RCV-4: locked", held, "not", sequences)


def judge_receive_deferred(case: Case) -> None:
    """Check that deferred messages are delivered all or none, to who may have them (DEF-2, DEF-3, DEF-5, TTL-9)."""
    command = case.command
    assert isinstance(command, ReceiveDeferred)
    entity = case.entity()
    if entity < 0:
        return
    _judge_status(case, entity)
    _, grant, ranges = case.result
    wanted = sorted(set(command.sequences))
    needs_session = case.settings(entity).requires_session and not command.dead_letter
    session_id = str(command.session.session_id) if command.session is not None else None
    case.check(needs_session == (session_id is not None), "DEF-5: received without", command)
    for sequence in wanted:
        message = case.message((entity, sequence))
        if message is None:
            return
        is_free = message.grant == 0
        case.check(is_free, "DEF-2, RACE-13: delivered", sequence, message.status)
        is_here = bool(message.dead) == command.dead_letter
        case.check(is_here, "DEF-9: delivered from the other store", sequence)
        if needs_session:
            is_own = message.session_id == session_id
            case.check(is_own, "DEF-5: of another session", sequence, message.session_id)
        if not command.dead_letter:
            is_over = message.is_over(case.now_ms)
            case.check(not is_over, "I-8, TTL-9: delivered after its expiry", sequence)
    if command.session is not None:
        _judge_holder(case, (entity, str(session_id)), command.session.grant)
    wheres: list[Where] = [(entity, sequence) for sequence in wanted]
    if command.deletes:
        case.gone.update(wheres)
        case.aside.update(dict.fromkeys(wheres, None))
        case.memory.taken[case.call_key] = wheres
        return
    sequences = [s for low, high in ranges for s in range(low, high + 1)]
    case.check(sequences == wanted, "DEF-2: delivered", sequences, "not", wanted)
    case.aside.update(dict.fromkeys(wheres, grant))
    if command.session is None:
        _judge_lock(case, entity, grant, sequences, dead_letter=command.dead_letter)
