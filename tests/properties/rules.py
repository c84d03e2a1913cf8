"""The model of each call, one function for each command.

Each checks first and changes the model afterwards, so that a refused call leaves it untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lockstep.core import commands as c
from tests.properties.idling_rules import clear_states
from tests.properties.looking_rules import browse, look_at_sessions
from tests.properties.receiving_rules import (
    accept,
    break_lock,
    receive,
    receive_deferred,
    release,
    renew_messages,
    renew_session,
)
from tests.properties.sending_rules import cancel_scheduled, send
from tests.properties.settling_rules import get_state, set_state, settle
from tests.properties.turning_rules import take_turn
from tests.properties.undoing_rules import cancel, give_up

RULES: dict[type, Callable[..., tuple[Any, ...]]] = {
    c.Send: send,
    c.CancelScheduled: cancel_scheduled,
    c.Accept: accept,
    c.Receive: receive,
    c.ReceiveDeferred: receive_deferred,
    c.Settle: settle,
    c.RenewMessages: renew_messages,
    c.RenewSession: renew_session,
    c.ReleaseSession: release,
    c.BreakLock: break_lock,
    c.GetState: get_state,
    c.SetState: set_state,
    c.TakeTurn: take_turn,
    c.ClearStates: clear_states,
    c.Cancel: cancel,
    c.GiveUp: give_up,
    c.Browse: browse,
    c.ListSessions: look_at_sessions,
    c.GetSession: look_at_sessions,
}
