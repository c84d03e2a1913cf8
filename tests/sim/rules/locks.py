"""Who holds what, from the grant to its end (sections 4.2, 4.3, 5.2 and 5.3 of the contract, ADD-4, ADD-5)."""

from __future__ import annotations

from lockstep.core.changes import LockRow, SessionRow
from lockstep.core.commands import Accept, BreakLock, ReleaseSession
from lockstep.core.entity import RECEIVING_FORBIDDEN
from tests.sim.case import Case
from tests.sim.rows import Place, Where

_UNDO_MS = 100  # how long an owner may take to undo a call after it knows that its caller has gone
_CLOSING = ("release", "break_lock", "cancelled")


def judge_grants(case: Case) -> None:
    """Check that locks begin and end only as they may (I-3, SES-18, SES-20, SES-26)."""
    for place, row in case.step.sessions.items():
        before = case.book.sessions.get(place)
        was_held = before is not None and before.locked_until_ms != 0
        if not was_held and row.locked_until_ms:
            is_accepted = case.kind == "accept" and case.result == [row.session_id, row.grant]
            case.check(is_accepted, "I-3: granted without an accept", row.session_id)
            is_new = row.grant > case.book.partition.last_grant
            case.check(is_new, "SES-26: an old grant number", row)
        elif before is not None and was_held and row.locked_until_ms:
            case.check(row.grant == before.grant, "I-3: two holders", before, row)
            is_later = row.locked_until_ms >= before.locked_until_ms
            case.check(is_later, "SES-18: a lock was shortened", before, row)
        elif before is not None and was_held and case.kind is not None:
            case.check(case.kind in _CLOSING, "SES-20: a session was closed by", case.kind, before)


def judge_accept(case: Case) -> None:
    """Check that an accept takes a free session, and accept-next one that has a message (SES-7, SES-9, SES-12)."""
    command = case.command
    assert isinstance(command, Accept)
    entity = case.entity()
    if entity < 0:
        return
    status = case.settings(entity).status
    case.check(status not in RECEIVING_FORBIDDEN, "16.1: received from a queue that is", status)
    session_id, grant = case.result
    place = (entity, session_id)
    case.check(command.session_id in (None, session_id), "SES-7: accepted", session_id)
    row = case.step.sessions.get(place)
    case.check(row is not None and row.grant == grant, "I-3: accepted, but not held", place, row)
    case.hands[place] = set()
    case.looked.add(place)
    if command.session_id is None:
        swept = {*case.step.gone, *((row.entity, row.sequence) for row in case.step.dead)}
        left = [s for s in case.book.active(*place) if (entity, s) not in swept]
        case.check(left, "SES-9, SES-12, TTL-7: nothing to deliver in", place)
        waits = left and case.book.messages[entity, left[0]].later_ms
        case.check(not waits, "ADD-6: its first message waits, and it was offered", place)


def judge_release(case: Case) -> None:
    """Check that a session is given back by its holder, and that nothing is counted (DCN-4)."""
    command = case.command
    assert isinstance(command, ReleaseSession)
    place = (case.entity(), str(command.session.session_id))
    before = case.book.sessions.get(place)
    is_own = before is not None and before.locked_until_ms and before.grant == command.session.grant
    case.check(is_own, "I-4: closed under a grant that is over", command.session, before)
    _close(case, place, "closed")


def judge_break_lock(case: Case) -> None:
    """Check that breaking a lock is a close: nothing is counted (ADD-5)."""
    command = case.command
    assert isinstance(command, BreakLock)
    place = (case.entity(), str(command.session_id))
    before = case.book.sessions.get(place)
    was_held = before is not None and before.locked_until_ms != 0
    case.check(was_held, "ADD-5: broke a lock that nobody held", place)
    _close(case, place, "broken")


def _close(case: Case, place: Place, cause: str) -> None:
    row = case.step.sessions.get(place)
    is_closed = place in case.step.forgotten or (row is not None and not row.locked_until_ms)
    case.check(is_closed, "SES-20: closed, but still held", place, row)
    before = case.book.sessions.get(place)
    if before is not None and before.locked_until_ms:
        case.book.ended[before.grant] = cause
        case.end_session(place, counts=False)


def judge_cancel(case: Case) -> None:
    """Check that undoing a call takes back what it gave, and counts nothing (BAT-9, SES-15)."""
    case.check(case.key in case.memory.cancelled, "SES-18: taken from its holder", case.key)
    kind, *facts = case.book.result_of(case.key)
    entities = {w[0] for w in (*case.step.sessions, *case.step.forgotten, *case.step.locks)}
    entities |= {where[0] for where in case.step.aside}
    if kind == "accept":
        for entity in entities:
            row = case.book.sessions.get((entity, facts[0]))
            if row is not None and row.locked_until_ms and row.grant == facts[1]:
                _close(case, (entity, facts[0]), "cancelled")
    elif kind in ("receive", "receive_deferred"):
        session_id, grant, ranges = facts
        sequences = {s for low, high in ranges for s in range(low, high + 1)}
        for entity in entities:
            _undo_receive(case, entity, session_id, grant, sequences)


def _undo_receive(
    case: Case, entity: int, session_id: str | None, grant: int, sequences: set[int]
) -> None:
    if session_id is None:
        mine = case.book.locked(entity, grant)
    else:
        row = case.book.sessions.get((entity, session_id))
        if row is None or not row.locked_until_ms or row.grant != grant:
            return
        mine = dict.fromkeys(sequences.intersection(case.book.deferred_hand(row)), 0)
        case.hand((entity, session_id)).difference_update(sequences)
    wheres: list[Where] = [(entity, sequence) for sequence in sorted(mine)]
    deferred = [where for where in wheres if case.book.messages[where].grant is not None]
    case.put_back_deferred(deferred, counts=False)


# --- by time -----------------------------------------------------------------------------------------


def judge_expired(case: Case, grace_ms: int) -> None:
    """Check which locks ran out, and that each failed delivery is counted once (SES-18, DCN-2, DCN-4, ADD-4)."""
    for place, row in case.step.sessions.items():
        before = case.book.sessions.get(place)
        if before is not None and before.locked_until_ms and not row.locked_until_ms:
            if row.last_loss == "disconnected":
                _expect_disconnected(case, place, before)
            else:
                _expect_session_end(case, place, before, grace_ms)
    for place in case.step.forgotten:
        before = case.book.sessions.get(place)
        if place not in case.step.sessions and before is not None and before.locked_until_ms:
            _expect_session_end(case, place, before, grace_ms)
    for (entity, grant), lock in case.step.locks.items():
        _expect_lock_end(case, entity, grant, lock, grace_ms)


def _expect_disconnected(case: Case, place: Place, before: SessionRow) -> None:
    """RACE-19: the stream of its holder broke, and the queue releases then; that is a close."""
    is_broken = (case.book.number, before.grant, 0) in case.memory.broken
    case.check(is_broken, "RACE-19: released, but no stream broke", place, before)
    may = case.settings(place[0]).release_on_disconnect
    case.check(may, "RACE-19: released, and its holder may be at work", place, before)
    case.book.ended[before.grant] = "disconnected"
    case.end_session(place, counts=False)


def _is_disconnected(case: Case, entity: int, grant: int, ended: dict[int, int]) -> bool:
    """RACE-19: whether these locks of messages ended because their receiver's stream broke."""
    number, counts = case.book.number, case.step.counts
    is_broken = all((number, grant, sequence) in case.memory.broken for sequence in ended)
    if not is_broken or not case.settings(entity).release_on_disconnect:
        return False
    is_over = case.now_ms >= max(ended.values())
    return not is_over or not any((entity, sequence) in counts for sequence in ended)


def judge_delays(case: Case) -> None:
    """Check that delays end when their time has come, and that nothing comes back expired (ADD-6, TTL-5)."""
    swept = {*case.step.gone, *((row.entity, row.sequence) for row in case.step.dead)}
    for where in case.step.delays:
        message = case.message(where)
        if message is None:
            return
        is_over = 0 < message.later_ms <= case.now_ms
        case.check(is_over or where in swept, "ADD-6: a delay ended early", where, message)
        case.delays[where] = None
        if message.session_id is None:
            case.back.add(where)
        elif not message.dead and is_over:
            case.looked.add((where[0], message.session_id))


def _expect_session_end(case: Case, place: Place, before: SessionRow, grace_ms: int) -> None:
    hand = [*case.book.hand(before), *case.book.deferred_hand(before)]
    wheres: list[Where] = [(place[0], sequence) for sequence in hand]
    counts = _counts(case, before.grant, before.locked_until_ms, wheres, grace_ms)
    case.book.ended[before.grant] = "expired"
    case.end_session(place, counts=counts)


def _expect_lock_end(
    case: Case, entity: int, grant: int, lock: LockRow | None, grace_ms: int
) -> None:
    held = case.book.locked(entity, grant)
    left = case.book.locked(entity, grant, lock) if lock is not None else {}
    ended = [s for s in held if s not in left]
    if not ended:
        return
    if _is_disconnected(case, entity, grant, {s: held[s] for s in ended}):
        deferred = [(entity, s) for s in ended if case.book.messages[entity, s].grant is not None]
        case.put_back_deferred(deferred, counts=False)
        # What has expired may be collected at once, or when somebody asks next (TTL-4).
        swept = {*case.step.gone, *((row.entity, row.sequence) for row in case.step.dead)}
        back = {(entity, sequence) for sequence in ended}.difference(deferred)
        case.back.update(back & swept)
        return
    wheres: list[Where] = [(entity, sequence) for sequence in sorted(ended)]
    until_ms = max(held[sequence] for sequence in ended)
    counts = _counts(case, grant, until_ms, wheres, grace_ms)
    counts = counts and not case.book.locks[entity, grant].dead_letter  # DCN-9
    for where in wheres:
        if case.book.messages[where].grant is not None:
            case.put_back_deferred((where,), counts=counts)
        elif not counts or case.fail(where):
            case.back.add(where)


def _counts(case: Case, grant: int, until_ms: int, hand: list[Where], grace_ms: int) -> bool:
    """Check that a lock did not end early; return whether its end counts (DCN-4, ADD-4)."""
    book, now_ms = case.book, case.now_ms
    case.check(now_ms >= until_ms, "SES-18: expired early", grant, now_ms, until_ms)
    told = book.told_ms.get(grant, 0)
    case.check(now_ms >= told, "SES-24: expired before", told, "grant", grant)
    _judge_orphan(case, grant, until_ms)
    if grant not in book.graced or grant in book.heard:
        return True
    if grant in book.maybe_heard:
        return any(where in case.step.counts for where in hand)
    end_ms = book.opened_ms + grace_ms
    case.check(now_ms >= end_ms, "ADD-4: no grace for", grant, now_ms, end_ms)
    return False


def _judge_orphan(case: Case, grant: int, until_ms: int) -> None:
    """SES-15, BAT-9: a lock whose receiver has gone, as its owner knows, does not wait for its end."""
    key, granted_at = case.book.granted.get(grant, (None, 0.0))
    if key is None or key not in case.book.orphans:
        return
    known_at = max(case.book.orphans[key], granted_at)
    undone_ms = case.book.time_at(known_at) + _UNDO_MS
    is_late = until_ms > undone_ms
    case.check(not is_late, "SES-15, BAT-9: the lock of a caller that had gone ran out", key, grant)
