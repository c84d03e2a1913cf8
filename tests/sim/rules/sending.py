"""What is stored, and under which numbers: sends, schedules and duplicates (sections 3, 8 and 11 of the contract)."""

from __future__ import annotations

import json
from array import array
from typing import Any

from lockstep.core.changes import ChunkRow
from lockstep.core.commands import CancelScheduled, Send
from lockstep.core.entity import SENDING_FORBIDDEN, SPREAD
from tests.sim.case import Case
from tests.sim.rows import Where


def judge_moves(case: Case) -> None:
    """Check what became active: when it was due, once, behind all others (SCH-3, SCH-4)."""
    last: dict[int, int] = {}
    times: dict[int, list[tuple[int, int]]] = {}
    for row in case.step.moved:
        entity, _ = case.book.chunks[row.chunk]
        known = last.get(entity, case.book.last_sequence[entity])
        case.check(row.first_sequence > known, "SCH-3: an old number", row, known)
        last[entity] = row.first_sequence + row.last - row.first
        for place in range(row.first, row.last + 1):
            number = case.book.numbers.get((row.chunk, place))
            case.check(number is not None, "I-1: enqueued again, but not stored", row)
            if number is None:
                return
            message = case.book.messages[entity, number]
            case.check(row.enqueued_ms == case.now_ms, "SCH-3: enqueued at", row.enqueued_ms)
            if case.step.jobs:
                continue  # `jobs` says what may be resubmitted
            case.check(
                case.kind is None and message.due_ms, "SCH-3: enqueued again", number, case.kind
            )
            case.check(message.due_ms <= case.now_ms, "SCH-4: too early", number, message.due_ms)
            times.setdefault(entity, []).append((message.due_ms, number))
    for due in times.values():
        case.check(due == sorted(due), "SCH-3: not in the order of their times", due)


def judge_chunks(case: Case) -> None:
    """Check that only sends store messages, and under new numbers (I-1, I-7)."""
    for row in case.step.chunks:
        command = case.command
        is_sent = isinstance(command, Send) or getattr(command, "outputs", None) is not None
        is_sent = is_sent and case.kind in ("send", "turn")
        # `jobs` and `transfers` say what may be.
        is_moved = case.kind is None and (case.step.jobs or case.step.arrivals)
        case.check(is_sent or is_moved, "I-1: stored unasked", row)
        last = case.book.last_sequence.get(row.entity, 0)
        case.check(row.first_sequence > last, "I-7: sequence", row.first_sequence, last)
        if is_moved:
            continue
        for at, body in enumerate(row.messages):
            where = (row.entity, row.first_sequence + at)
            case.check(body not in case.memory.bodies, "ADD-3: stored twice", body, where)
            case.memory.bodies[body] = where


def judge_send(case: Case) -> None:
    """Check that a send stores each message that is new, and answers the others with the first copy's number."""
    command = case.command
    assert isinstance(command, Send)
    entity = case.entity()
    if entity >= 0:
        expect_sent(case, entity, command, case.result)


def expect_sent(case: Case, entity: int, command: Send, told: list[Any]) -> None:
    """Expect that what is new of a send is stored, and that its caller was told the number of each message."""
    settings = case.settings(entity)
    is_allowed = settings.status not in SENDING_FORBIDDEN
    case.check(is_allowed, "16.1: sent to a queue that is", settings.status)
    each = _each(command)
    first = case.step.chunks[0].first_sequence if case.step.chunks else 0
    numbers: list[int] = []
    new: list[int] = []
    duplicates: list[int] = []
    window_ms = settings.duplicate_detection_history_time_window_ms
    for at, (session_id, name, _, _) in enumerate(each):
        owner = session_id if settings.placement == SPREAD else None
        known = case.memory.ids.get((case.book.number, entity, owner, name))
        is_known = known is not None and case.now_ms < known[0] + window_ms
        if settings.requires_duplicate_detection and name and is_known:
            assert known is not None
            numbers.append(known[1])
            duplicates.append(at)
            continue
        numbers.append(first + len(new))
        if name:
            case.memory.ids[case.book.number, entity, owner, name] = (case.now_ms, first + len(new))
        new.append(at)
    stored = tuple(body for row in case.step.chunks for body in row.messages)
    wanted = tuple(command.messages[at] for at in new)
    case.check(stored == wanted, "DUP-2, DUP-8, I-1: stored", stored, "not", wanted)
    if case.step.chunks and stored == wanted:
        case.check(len(case.step.chunks) == 1, "SND-5: not one batch", case.step.chunks)
        _judge_columns(case, case.step.chunks[0], [each[at] for at in new])
    if len(told) == 2:
        answered, said = [told[0] + at for at in range(told[1])], []
    else:
        answered = [n for low, high in told[2] for n in range(low, high + 1)]
        said = told[3]
    is_right = answered == numbers and said == duplicates
    case.check(is_right, "DUP-2: answered", answered, said, "not", numbers, duplicates)
    case.memory.numbers[case.call_key] = numbers


def _each(command: Send) -> list[tuple[str | None, str, int, int]]:
    """Return session, id, time to live and due time of each message."""
    count = len(command.messages)

    def spread(values: tuple[int, ...]) -> tuple[int, ...]:
        return values if len(values) == count else (values or (0,)) * count

    ids = command.session_ids if len(command.session_ids) == count else command.session_ids * count
    names = command.message_ids or ("",) * count
    ttls, dues = spread(command.ttls_ms), spread(command.due_ms)
    return list(zip(ids, names, ttls, dues, strict=True))


def _judge_columns(case: Case, row: ChunkRow, each: list[tuple[str | None, str, int, int]]) -> None:
    """Check what is stored beside the bodies (SES-1, TTL-1, SCH-1)."""
    settings = case.settings(row.entity)
    case.check(row.enqueued_ms == case.now_ms, "SND-1: enqueued at", row.enqueued_ms)
    if settings.requires_session:
        ids = json.loads(row.sessions)
        ids = ids * len(each) if len(ids) == 1 else ids
        wanted = [session_id for session_id, *_ in each]
        case.check(ids == wanted, "SES-1: sessions", ids, "not", wanted)
    most = settings.default_message_time_to_live_ms
    lives = [ttl if most is None else min(ttl or most, most) for *_, ttl, _ in each]
    ttls = list(array("q", row.ttls)) if row.ttls else [0] * len(each)
    case.check(ttls == lives, "TTL-1: lives for", ttls, "not", lives)
    later = [due if due > case.now_ms else 0 for *_, due in each]
    dues = list(array("q", row.due_ms)) if row.due_ms else [0] * len(each)
    case.check(dues == later, "SCH-1: due at", dues, "not", later)


def judge_cancel_scheduled(case: Case) -> None:
    """Check that a cancellation takes all that it names, and only what is scheduled (SCH-5)."""
    command = case.command
    assert isinstance(command, CancelScheduled)
    entity = case.entity()
    wheres: set[Where] = {(entity, sequence) for sequence in command.sequences}
    for where in wheres:
        message = case.message(where)
        is_waiting = message is not None and message.due_ms
        case.check(is_waiting, "SCH-5: cancelled, but not scheduled", where, message)
    case.gone |= wheres
    is_counted = case.result == [len(wheres)]
    case.check(is_counted, "SCH-5: counted", case.result, "not", len(wheres))
