"""What receivers decide, and the state they keep (sections 4.2, 4.3 and 5.5 of the contract)."""

from __future__ import annotations

from typing import Any

from lockstep.core.commands import Outcome, SetState, Settle, Settlement
from tests.sim.case import Case
from tests.sim.rows import Place, Where

_GIVING_BACK = (Outcome.ABANDON, Outcome.RELEASE)


def judge_settle(case: Case) -> None:
    """Check that what was settled was in hand, and went where its receiver decided."""
    command = case.command
    assert isinstance(command, Settle)
    entity = case.entity()
    if entity < 0:
        return
    for settlement, sequences in taken(command, case.result):
        for sequence in sequences:
            where, grant = (entity, sequence), settlement.grant
            if case.message(where) is None:
                return
            is_held = _holds(case, entity, command, grant, sequence)
            who = command.session
            case.check(is_held, "I-4: settled what is not in hand", who, grant, sequence)
            if is_held:
                _expect(case, where, command, settlement)
        if command.session is not None and settlement.outcome in _GIVING_BACK:
            _expect_recall(case, (entity, str(command.session.session_id)), sequences)


def _holds(case: Case, entity: int, command: Settle, grant: int, sequence: int) -> bool:
    book = case.book
    if command.session is None:
        row = book.locks.get((entity, grant))
        is_here = row is not None and bool(row.dead_letter) == command.dead_letter
        return is_here and sequence in book.locked(entity, grant)
    row_held = book.sessions.get((entity, str(command.session.session_id)))
    if row_held is None or not row_held.grant == command.session.grant == grant:
        return False
    place = (entity, row_held.session_id)
    return sequence in case.hand(place) or sequence in book.deferred_hand(row_held)


def _expect_recall(case: Case, place: Place, sequences: list[int]) -> None:
    """Expect that what is younger than a message that came back comes back too, uncounted, where the queue says so."""
    is_wanted = case.settings(place[0]).recall_on_abandon  # SES-29
    row, messages = case.book.sessions[place], case.book.messages
    ordinary = [s for s in sequences if messages[place[0], s].grant is None]
    if not is_wanted or not ordinary:
        return
    hand = case.hand(place)
    away = {s for e, s in (*case.gone, *case.dead, *case.aside) if e == place[0]} | hand
    back = [s for s in case.book.active(*place) if s <= row.cursor and s not in away]
    if back:
        hand.difference_update([s for s in hand if s > back[0]])


def _expect(case: Case, where: Where, command: Settle, settlement: Settlement) -> None:
    message, outcome = case.book.messages[where], settlement.outcome
    is_deferred = message.grant is not None
    place = (where[0], str(command.session.session_id)) if command.session is not None else None
    if settlement.properties:
        case.set_properties(where, settlement.properties)
    if outcome is Outcome.COMPLETE:
        expect_completed(case, where, place)
        return
    if place is not None and not is_deferred:
        case.hand(place).discard(where[1])
    if outcome is Outcome.DEAD_LETTER:
        if is_deferred:
            case.aside[where] = None
        case.dead[where] = settlement.reason
    elif outcome is Outcome.DEFER:
        case.aside[where] = 0
        if (
            not command.dead_letter
        ):  # DCN-2, DCN-9; DEF-8: it is no dead letter before it fails again
            case.counts[where] = message.deliveries + 1
    else:
        _expect_back(case, where, command, settlement)


def _expect_back(case: Case, where: Where, command: Settle, settlement: Settlement) -> None:
    """Expect that a message comes back to its place, at once or with a delay, unless it failed too often.

    One of a plain queue that expired meanwhile is not delayed: it is collected now (TTL-5).
    """
    message = case.book.messages[where]
    counts = settlement.outcome is Outcome.ABANDON and not command.dead_letter
    stays = not counts or case.fail(where)
    if message.grant is not None:
        if stays:
            case.aside[where] = 0
        return
    is_plain = command.session is None and not command.dead_letter
    is_delayed = settlement.delay_ms and not (is_plain and message.is_over(case.now_ms))
    if is_delayed and stays:
        case.delays[where] = case.now_ms + settlement.delay_ms  # ADD-6
    if command.session is not None:
        case.looked.add((where[0], str(command.session.session_id)))
    elif is_plain and stays and not is_delayed:
        case.back.add(where)


def expect_completed(case: Case, where: Where, place: Place | None) -> None:
    """Expect that a message in hand is stored no more."""
    if case.book.messages[where].grant is not None:
        case.aside[where] = None
    elif place is not None:
        case.hand(place).discard(where[1])
    case.gone.add(where)
    _note_completed(case, where)


def _note_completed(case: Case, where: Where) -> None:
    """I-2: who completes what it receives, in that order, completes in the order of sending.

    A receiver that lost its memory, and took its own lock up again by the id of an earlier accept (ADD-3), may complete
    what it receives from then on before what it has in hand from before: that is its own order, and not judged.
    """
    message = case.book.messages[where]
    if (
        where in case.memory.put_back
        or message.dead
        or not (message.session_id or "").startswith("orderly")
    ):
        return
    place = (where[0], message.session_id or "")
    last = case.memory.completed.get(place, 0)
    is_in_order = where[1] > last or where in case.memory.passed_over
    case.check(is_in_order, "I-2: completed out of order", place, last, where[1])
    case.memory.completed[place] = max(last, where[1])
    older = (sequence for sequence in case.hand(place) if sequence < where[1])
    case.memory.passed_over.update((where[0], sequence) for sequence in older)


def taken(command: Settle, result: list[Any]) -> list[tuple[Settlement, list[int]]]:
    """Return what a settle call settled, and how."""
    failed = {
        (grant, sequence)
        for grant, parts in result[0]
        for first, last in parts
        for sequence in range(first, last + 1)
    }
    return [
        (settlement, [s for s in settlement.sequences if (settlement.grant, s) not in failed])
        for settlement in command.settlements
    ]


def judge_state(case: Case) -> None:
    """Check that a state is written under the lock, and only over the version that was named (SES-40, ADD-7)."""
    command = case.command
    assert isinstance(command, SetState)
    place = (case.entity(), str(command.session.session_id))
    row = case.book.sessions.get(place)
    is_held = row is not None and row.locked_until_ms and row.grant == command.session.grant
    case.check(is_held, "I-4: state under", command.session, row)
    expect_state(case, place, command.value, command.if_version, case.result[0])


def expect_state(
    case: Case, place: Place, value: bytes | None, if_version: int | None, told: int
) -> None:
    """Expect that a state is written, and that its caller was told its version (SES-40, ADD-7)."""
    row, after = case.book.sessions.get(place), case.step.sessions.get(place)
    case.check(case.step.states == {place: value}, "I-6: wrote", case.step.states)
    if row is None or after is None:
        case.check(False, "I-6: a state without a session", place)
        return
    is_wanted = if_version in (None, row.state_version)
    case.check(is_wanted, "ADD-7: overwrote", row.state_version, "not", if_version)
    is_new = told == after.state_version > case.book.partition.last_grant
    case.check(is_new, "ADD-7: version", told, "after", case.book.partition.last_grant)


def judge_states(case: Case) -> None:
    """Check that nothing else writes a state, but the clearing of one that nobody holds (SES-43, SES-44, SES-48)."""
    if case.kind == "state" or getattr(case.command, "sets_state", False):
        return
    cleared = set()
    for place, value in case.step.states.items():
        before = case.book.sessions.get(place)
        is_free = before is None or not before.locked_until_ms
        may_clear = case.kind is None and value is None and is_free
        is_known = may_clear or place in case.step.forgotten
        case.check(is_known, "I-6: a state changed by", case.kind, place, value)
        if may_clear:
            cleared.add(place)
    for place, row in case.step.sessions.items():
        before = case.book.sessions.get(place)
        known = before.state_version if before is not None else 0
        is_new = row.state_version > case.book.partition.last_grant
        is_right = is_new if place in cleared else row.state_version == known
        case.check(is_right, "ADD-7: version", place, row.state_version, "after", known)
