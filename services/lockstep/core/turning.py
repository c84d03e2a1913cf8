"""What a partition does when a holder commits a turn (ADD-8).

Here belongs the joint commit of what a holder has done, what it remembers and what it sends. Never here: the parts by
themselves (`settling`, `state`, `sending`). The law: all of it happens or nothing; outputs go to the queue, and the
partition, of the session.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from lockstep.core.commands import Outcome, Settlement, TakeTurn
from lockstep.core.errors import InvalidOperation, InvalidRequest
from lockstep.core.ids import GrantNumber
from lockstep.core.limits import check_at_most
from lockstep.core.locks import find_held, message_lock_lost
from lockstep.core.replies import TurnTaken
from lockstep.core.sending import check_send, remembered_send, sent_before, store_send
from lockstep.core.settling import settle_in_session
from lockstep.core.state import check_state, write_state

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step
    from lockstep.core.session import Session


def on_take_turn(partition: Partition, command: TakeTurn, step: Step) -> TurnTaken:
    """Complete messages of a held session, set its state and send messages, all or nothing."""
    queue = partition.queue(command.entity)
    found = partition.repeated(command.request, command.fingerprint, "turn")
    if found is not None:
        return _taken_before(found)
    session = find_held(partition, queue, command.session)
    _check(partition, queue, session, command)
    sent = None
    if command.outputs is not None:
        sent = store_send(partition, queue, command.outputs, step)  # the last that may refuse
    session.hear_of_holder()
    if command.complete:
        numbers = array("q", sorted(command.complete))
        done = Settlement(Outcome.COMPLETE, GrantNumber(session.grant), numbers)
        failures = settle_in_session(partition, queue, session, done, step)
        assert not failures, "what is completed was found in hand"
    if command.sets_state:
        write_state(partition, queue, session, command.state, step)
    result = ("turn", remembered_send(sent) if sent is not None else None, session.state_version)
    partition.remember(command.request, command.fingerprint, result, step)
    return TurnTaken(sent, session.state_version)


def _taken_before(found: tuple[Any, ...]) -> TurnTaken:
    return TurnTaken(sent_before(found[1]) if found[1] is not None else None, found[2])


def _check(partition: Partition, queue: Queue, session: Session, command: TakeTurn) -> None:
    if not command.complete and not command.sets_state and command.outputs is None:
        raise InvalidRequest("A turn completes messages, sets the state or sends; give one of it.")
    most = partition.limits.settle_messages_max
    check_at_most(len(command.complete), most, "messages in one turn", "Complete fewer.")
    if len(set(command.complete)) < len(command.complete):
        raise InvalidRequest("A message can be completed once in a turn. Nothing was done.")
    for sequence in command.complete:
        if not session.is_in_hand(sequence) and sequence not in session.deferred_hand:
            raise message_lock_lost(partition, queue, session.grant, sequence)
    if command.sets_state:
        check_state(queue, session, command.state, command.if_version)
    elif command.if_version is not None:
        raise InvalidRequest("A version of the state is compared only where the state is set.")
    if command.outputs is not None:
        if command.outputs.entity != command.entity:
            raise InvalidOperation(
                f"A turn sends to its own queue, {queue.path}, only. Nothing was done.",
                details={"entity": queue.path},
            )
        check_send(partition, queue, command.outputs)
