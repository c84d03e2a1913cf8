"""The model of what can be looked at without a lock (section 12 of the contract)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lockstep.core import commands as c
from tests.properties.calls import Refused
from tests.properties.message import State
from tests.properties.receiving_rules import described

if TYPE_CHECKING:
    from tests.properties.model import QueueModel


def browse(model: QueueModel, command: c.Browse, _now_ms: int) -> tuple[Any, ...]:
    """Show messages by rising number, whatever their state and whoever has them (PEK-2, PEK-3, PEK-6)."""
    if not 1 <= command.max_messages <= model.limits.receive_messages_max:
        raise Refused("LIMIT_EXCEEDED")
    if command.reason is not None and not command.dead_letter:
        raise Refused("INVALID_ARGUMENT")
    found = [
        m
        for m in sorted(model.shelf(dead_letter=command.dead_letter), key=lambda m: m.sequence)
        if m.sequence >= command.from_sequence
        and command.session_id in (None, m.session_id)
        and (command.reason is None or (m.why is not None and m.why[0] == command.reason))
    ]
    seen, _ = model.chosen(found, command.max_messages)
    later, aside = (
        [m.sequence for m in seen if m.state is state]
        for state in (State.SCHEDULED, State.DEFERRED)
    )
    return ("browsed", described(seen), later, aside, len(seen) < len(found))


def look_at_sessions(model: QueueModel, _command: Any, _now_ms: int) -> tuple[Any, ...]:
    """Refuse to show the sessions of a plain queue."""
    assert not model.settings.requires_session, "what a session queue shows is compared elsewhere"
    raise Refused("INVALID_OPERATION")
