"""The model of states that nobody uses (SES-44).

A state may go once nobody holds its session, no message is in it and it has been idle for its time; it must be gone
when it was alone for that time. When exactly it goes is the partition's affair: the model follows, after it has
checked that it was allowed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lockstep.core import commands as c
from tests.properties.calls import Refused

if TYPE_CHECKING:
    from tests.properties.model import QueueModel

Facts = tuple[Any, ...]


def idle_states(model: QueueModel, idle_ms: int, now_ms: int) -> list[str]:
    """Return the sessions that have nothing but a state, for so long."""
    return [
        i for i in state_only(model) if model.book.sessions[i].idle_since_ms <= now_ms - idle_ms
    ]


def state_only(model: QueueModel) -> list[str]:
    """Return the sessions that have nothing but a state."""
    sessions = model.book.sessions.items()
    kept = [i for i, s in sessions if s.state is not None and s.holder is None]
    return [i for i in kept if not model.of_session(i)]


def clear_state(model: QueueModel, session_id: str, now_ms: int) -> None:
    """Let a session have no state; that too is a write of it (ADD-7)."""
    session = model.book.sessions[session_id]
    session.state = None
    session.version = model.new_version()
    session.idle_since_ms = now_ms
    session.alone_since_ms = 0
    if not model.of_session(session_id) and session.holder is None:
        del model.book.sessions[session_id]


def clear_states(model: QueueModel, command: c.ClearStates, now_ms: int) -> Facts:
    """Clear the state of one session, whatever else it has, unless somebody holds it."""
    if not model.settings.requires_session:
        raise Refused("INVALID_OPERATION")
    if not 1 <= command.maximum <= 1000:
        raise Refused("LIMIT_EXCEEDED")
    assert command.session_id is not None, "which of several are cleared first is not said"
    session = model.book.sessions.get(command.session_id)
    if session is None or session.state is None:
        return ("states cleared", 0, False)
    if session.holder is not None:
        raise Refused("SESSION_CANNOT_BE_LOCKED", details={"holder": session.holder.name})
    clear_state(model, command.session_id, now_ms)
    return ("states cleared", 1, False)


def follow(model: QueueModel, with_state: Iterable[str], now_ms: int) -> list[str]:
    """Clear the states that the partition cleared by time, if it may; return whose they were.

    Args:
        model: The queue.
        with_state: The sessions that have a state in the partition.
        now_ms: The time.
    """
    ttl_ms = model.settings.session_state_idle_ttl_ms
    kept = [i for i, s in model.book.sessions.items() if s.state is not None]
    cleared = sorted(set(kept).difference(with_state))
    allowed = [] if ttl_ms is None else idle_states(model, ttl_ms, now_ms)
    assert set(cleared) <= set(allowed), f"SES-44: cleared {cleared}, of {allowed} only"
    for session_id in cleared:
        clear_state(model, session_id, now_ms)
    late = [
        i
        for i in state_only(model)
        if ttl_ms is not None and 0 < model.book.sessions[i].alone_since_ms <= now_ms - ttl_ms
    ]
    assert not late, f"SES-44: the states of {late} are still there"
    return cleared


def note_alone(model: QueueModel, now_ms: int, *, anew: bool = False) -> None:
    """Note since when sessions have nothing but a state; `anew`: since now, as after a restart."""
    alone = state_only(model)
    for session_id, session in model.book.sessions.items():
        if session_id not in alone:
            session.alone_since_ms = 0
        elif anew or not session.alone_since_ms:
            session.alone_since_ms = now_ms
