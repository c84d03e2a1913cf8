"""The model of the one-commit turn (ADD-8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lockstep.core import commands as c
from tests.properties import sending_rules
from tests.properties.calls import Refused
from tests.properties.settling_rules import broken_by_state

if TYPE_CHECKING:
    from tests.properties.model import QueueModel

Facts = tuple[Any, ...]


def take_turn(model: QueueModel, command: c.TakeTurn, now_ms: int) -> Facts:
    """Complete, set the state and send, all or nothing; room is needed beside what is completed."""
    found = model.calls.find(command.request, command.fingerprint, "turn")
    if found is not None:
        return found
    holder = model.held(command.session)
    session = model.book.sessions[command.session.session_id]
    broken = _broken_by(model, command)
    if command.sets_state:
        broken |= broken_by_state(model, session, command.state, command.if_version)
    if broken:
        raise Refused(*broken)
    sent = None
    if command.outputs is not None:
        sent = sending_rules.store(model, command.outputs, now_ms)
    model.hear(holder.grant)
    for message in model.hand(command.session.session_id):
        if message.sequence in command.complete:
            model.remove(message, "completed")
    if command.sets_state:
        session.state = command.state
        session.version = model.new_version()
        session.idle_since_ms = now_ms
    facts = ("turn", sent, session.version)
    model.calls.keep(command.request, command.fingerprint, "turn", facts, now_ms)
    return facts


def _broken_by(model: QueueModel, command: c.TakeTurn) -> set[str]:
    broken = set()
    hand = {m.sequence for m in model.hand(command.session.session_id)}
    if not command.complete and not command.sets_state and command.outputs is None:
        broken.add("INVALID_ARGUMENT")
    if len(set(command.complete)) < len(command.complete):
        broken.add("INVALID_ARGUMENT")
    if len(command.complete) > model.limits.settle_messages_max:
        broken.add("LIMIT_EXCEEDED")
    if not hand.issuperset(command.complete):
        broken.add("MESSAGE_LOCK_LOST")
    if command.if_version is not None and not command.sets_state:
        broken.add("INVALID_ARGUMENT")
    if command.outputs is not None:
        broken |= sending_rules.broken_by(model, command.outputs)
        if command.outputs.entity != command.entity:
            broken.add("INVALID_OPERATION")
    return broken
