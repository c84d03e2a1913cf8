"""Commands that the core does not carry out as the contract says, so that histories leave them out.

Each has a test in `test_known_defects`, which fails as soon as the core is right; then both go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lockstep.core import commands as c
from lockstep.core.ids import SessionLock
from tests.properties.message import State

if TYPE_CHECKING:
    from tests.properties.model import QueueModel


def meets_a_known_defect(model: QueueModel, command: Any) -> bool:
    """Whether a command must be left out."""
    match command:
        case c.Receive() | c.ReceiveDeferred() if _is_refused_repeat(model, command):
            return True
        case c.ReceiveDeferred(session=SessionLock() as lock):
            return lock.grant in model.unheard
        case c.ReceiveDeferred(request=request):
            call = model.calls.calls.get(request) if request is not None else None
            if call is not None and call.kind == "receive_deferred":
                return call.result[1] in model.unheard
            return not command.sequences
        case c.Settle(session=SessionLock()):
            return _settles_a_deferred_one_twice(model, command)
    return False


def _is_refused_repeat(model: QueueModel, command: c.Receive | c.ReceiveDeferred) -> bool:
    """A receive that was answered before, of a queue that was disabled since."""
    is_disabled = model.settings.status in ("disabled", "receive_disabled")
    return is_disabled and command.request in model.calls.calls


def _settles_a_deferred_one_twice(model: QueueModel, command: c.Settle) -> bool:
    deferred = {m.sequence for m in model.messages if m.state is State.DEFERRED}
    for settlement in command.settlements:
        numbers = [s for s in settlement.sequences if s in deferred]
        if len(numbers) > len(set(numbers)):
            return True
        if settlement.outcome is c.Outcome.DEFER:
            deferred.update(settlement.sequences)
    return False
