"""The model of calls that are undone, or answered with nothing (ADD-3, BAT-9, SES-15)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lockstep.core import commands as c
from lockstep.core.ids import SessionLock
from tests.properties.calls import NOTHING

if TYPE_CHECKING:
    from tests.properties.model import QueueModel


def cancel(model: QueueModel, command: c.Cancel, now_ms: int) -> tuple[Any, ...]:
    """Undo an accept or a receive without counting, or keep one that has not come from having an effect."""
    call = model.calls.calls.get(command.request)
    if call is None:
        if not model.calls.is_expired(command.request):
            model.calls.keep(command.request, 0, "cancelled", (), now_ms)
        return ("cancelled", False)
    undone = False
    if call.result == NOTHING:
        return ("cancelled", False)
    if call.kind == "accept" and model.book.held(*call.result) is not None:
        model.end_session(call.result[0], "cancelled", now_ms)
        undone = True
    elif call.kind in ("receive", "receive_deferred"):
        undone = _undo_receive(model, *call.result)
    if undone:
        model.calls.keep(command.request, call.fingerprint, "cancelled", (), now_ms)
    return ("cancelled", undone)


def _undo_receive(
    model: QueueModel, where: SessionLock | bool, grant: int, sequences: list[int]
) -> bool:
    if isinstance(where, SessionLock):
        back = [m for m in model.under(grant) if m.sequence in sequences]
    else:
        back = model.under(grant)
    for message in back:
        message.free()
    return bool(back)


def give_up(model: QueueModel, command: c.GiveUp, now_ms: int) -> tuple[Any, ...]:
    """Let a late copy of a call find nothing; one that was forgotten stays forgotten."""
    calls = model.calls
    if command.request not in calls.calls and not calls.is_expired(command.request):
        model.calls.keep(command.request, command.fingerprint, command.kind, NOTHING, now_ms)
    return ("cancelled", False)
