"""The turn of a session in one commit (ADD-8)."""

from __future__ import annotations

from lockstep.core.commands import TakeTurn
from tests.sim.case import Case
from tests.sim.rules.sending import expect_sent
from tests.sim.rules.settling import expect_completed, expect_state


def judge_turn(case: Case) -> None:
    """Check that a turn did all that was asked for, under the session's lock, and nothing else."""
    command = case.command
    assert isinstance(command, TakeTurn)
    entity = case.entity()
    if entity < 0:
        return
    place = (entity, str(command.session.session_id))
    row = case.book.sessions.get(place)
    is_held = row is not None and row.locked_until_ms and row.grant == command.session.grant
    case.check(is_held, "I-4, ADD-8: a turn under", command.session, row)
    if row is None:
        return
    in_hand = {*case.hand(place), *case.book.deferred_hand(row)}
    for sequence in command.complete:
        if case.message((entity, sequence)) is None:
            return
        case.check(sequence in in_hand, "I-4, ADD-8: completed", sequence, "of", in_hand)
        expect_completed(case, (entity, sequence), place)
    sent, version = case.result
    if command.sets_state:
        expect_state(case, place, command.state, command.if_version, version)
    else:
        case.check(version == row.state_version, "ADD-8: told the version", version, row)
    case.check((sent is None) == (command.outputs is None), "ADD-8: sent", sent, command.outputs)
    if command.outputs is not None and sent is not None:
        is_here = command.outputs.entity == command.entity
        case.check(is_here, "ADD-8: sent elsewhere", command.outputs.entity)
        expect_sent(case, entity, command.outputs, sent[1:])
