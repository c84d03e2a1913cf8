"""The model of accepting, receiving, renewing and giving back (sections 4.1, 5.2, 5.3, 6.2 and 9, ADD-5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lockstep.core import commands as c
from lockstep.core.ids import GrantNumber, SessionId, SessionLock
from tests.properties.calls import NOTHING, Refused, shown
from tests.properties.message import Message, State
from tests.properties.session_book import Holder, SessionModel

if TYPE_CHECKING:
    from tests.properties.model import QueueModel

Facts = tuple[Any, ...]
_FORBIDS_RECEIVING = ("disabled", "receive_disabled")


# --- accepting ---------------------------------------------------------------------------------------


def accept(model: QueueModel, command: c.Accept, now_ms: int) -> Facts:
    """Grant the named session, or the next one (SES-7, SES-9)."""
    found = model.calls.find(command.request, command.fingerprint, "accept")
    if found == NOTHING:
        return ("none available", "final")
    if found is not None:
        lock = SessionLock(*found)
        model.hear(model.held(lock).grant)
        return _accepted(lock, model.book.sessions[lock.session_id])
    _check_accept(model, command)
    session_id: str | None = command.session_id
    if session_id is None:
        session_id = _next(model, now_ms)
        if session_id is None:
            model.calls.note_waiting(command.request)
            return ("none available", "for now")
    else:
        holder = model.book.session(session_id).holder
        if holder is not None:
            details = {"holder": holder.name, "locked_until_ms": str(holder.until_ms)}
            raise Refused("SESSION_CANNOT_BE_LOCKED", details=details)
        model.expire_session(session_id, now_ms)  # RACE-22: granted all the same
    grant = model.new_grant()
    until_ms = now_ms + model.settings.lock_duration_ms
    session = model.book.grant(
        session_id, grant=grant, name=command.holder, now_ms=now_ms, until_ms=until_ms
    )
    model.calls.keep(command.request, command.fingerprint, "accept", (session_id, grant), now_ms)
    return _accepted(SessionLock(SessionId(session_id), GrantNumber(grant)), session)


def _check_accept(model: QueueModel, command: c.Accept) -> None:
    _refuse_disabled(model)
    if not model.settings.requires_session:
        raise Refused("INVALID_OPERATION")
    if command.session_id is None and model.settings.accept_next == "disabled":
        raise Refused("INVALID_OPERATION")
    if max(len(command.session_id or ""), len(command.holder)) > 128:
        raise Refused("LIMIT_EXCEEDED")


def _next(model: QueueModel, now_ms: int) -> str | None:
    """Return the first session of which something is left when what has expired is gone (TTL-7)."""
    for session_id in model.runnable():
        model.expire_session(session_id, now_ms)
        if model.active(session_id):
            return session_id
    return None


def _accepted(lock: SessionLock, session: SessionModel) -> Facts:
    assert session.holder is not None
    return ("accepted", *lock, session.holder.until_ms, session.state is not None, session.version)


# --- receiving ---------------------------------------------------------------------------------------


def check_source(model: QueueModel, command: c.Receive | c.ReceiveDeferred | c.Settle) -> None:
    """Refuse a call that names a session where it must not, or none where it must (RCV-3, LCK-5)."""
    needs_session = model.settings.requires_session and not command.dead_letter
    if needs_session != (command.session is not None):
        raise Refused("INVALID_OPERATION")


def receive(model: QueueModel, command: c.Receive, now_ms: int) -> Facts:
    """Deliver what is there, and nothing that has expired (I-8)."""
    with _perhaps_disabled(model):
        return _receive(model, command, now_ms)


@contextmanager
def _perhaps_disabled(model: QueueModel) -> Iterator[None]:
    """Of a disabled queue, a refusal may name that instead of what else is wrong."""
    try:
        yield
    except Refused as refused:
        if model.settings.status in _FORBIDS_RECEIVING:
            raise Refused("ENTITY_DISABLED", *refused.reasons) from refused
        raise


def _refuse_disabled(model: QueueModel) -> None:
    """Refuse what is no repeat of a call that was answered before (section 16.1, ADD-3)."""
    if model.settings.status in _FORBIDS_RECEIVING:
        raise Refused("ENTITY_DISABLED")


def _receive(model: QueueModel, command: c.Receive, now_ms: int) -> Facts:
    check_source(model, command)
    if not 1 <= command.max_messages <= model.limits.receive_messages_max:
        raise Refused("LIMIT_EXCEEDED")
    if command.session is not None:
        return _receive_session(model, model.held(command.session), command, now_ms)
    found = model.calls.find(command.request, command.fingerprint, "receive")
    if found is not None:
        return _received_before(model, found, None)
    _refuse_disabled(model)
    if not command.dead_letter:
        model.expire_ahead(command.max_messages, now_ms)
    ready = model.ready(dead_letter=command.dead_letter)
    chosen, short = model.chosen(ready, command.max_messages)
    if not chosen:
        model.calls.note_waiting(command.request)
        return delivered(0, [], 0, short)
    return _hand_over(model, command, chosen, short, now_ms)


def _hand_over(
    model: QueueModel, command: c.Receive, chosen: list[Message], short: str, now_ms: int
) -> Facts:
    """Lock messages one by one, or let them be gone (RCV-1)."""
    grant = 0 if command.deletes else model.new_grant()
    until_ms = 0 if command.deletes else now_ms + model.settings.lock_duration_ms
    facts = delivered(grant, chosen, until_ms, short)
    for message in chosen:
        if command.deletes:
            model.remove(message, "received and deleted")
        else:
            message.grant, message.until_ms = grant, until_ms
    result = (command.dead_letter, grant, [m.sequence for m in chosen] if grant else [])
    model.calls.keep(command.request, command.fingerprint, "receive", result, now_ms)
    return facts


def _receive_session(model: QueueModel, holder: Holder, command: c.Receive, now_ms: int) -> Facts:
    assert command.session is not None
    session_id = command.session.session_id
    found = model.calls.find(command.request, command.fingerprint, "receive")
    if found is None:
        _refuse_disabled(model)
    model.hear(holder.grant)
    if found is not None:
        return _received_before(model, found, holder)
    model.expire_session(session_id, now_ms)
    chosen, short = model.chosen(model.deliverable(session_id), command.max_messages)
    _extend(model, holder, now_ms)
    facts = delivered(0 if command.deletes else holder.grant, chosen, holder.until_ms, short)
    if not chosen:
        model.calls.note_waiting(command.request)
        return facts
    result: Facts = (command.session, holder.grant, [m.sequence for m in chosen])
    for message in chosen:
        if command.deletes:
            model.remove(message, "received and deleted")
            result = (False, 0, [])
        else:
            message.grant = holder.grant
    model.calls.keep(command.request, command.fingerprint, "receive", result, now_ms)
    return facts


def _extend(model: QueueModel, holder: Holder, now_ms: int) -> None:
    """A receive keeps the lock, where the queue says so (SES-23)."""
    if model.settings.session_lock_extension == "on_receive":
        holder.until_ms = max(holder.until_ms, now_ms + model.settings.lock_duration_ms)


def _received_before(model: QueueModel, found: Facts, holder: Holder | None) -> Facts:
    """Answer a repeat with what is still in hand of the first answer (ADD-3)."""
    if found == NOTHING:
        until_ms = holder.until_ms if holder else 0
        return delivered(0, [], until_ms, "NO_MORE_MESSAGES", is_final=True)
    _, grant, sequences = found
    if not grant:
        return delivered(0, [], 0, "NO_MORE_MESSAGES", is_final=True)
    model.hear(grant)
    # A message that was deferred since and received by its number is the answer of that other call.
    mine = [m for m in model.under(grant) if m.state is State.ACTIVE]
    again = [m for sequence in sequences for m in mine if m.sequence == sequence]
    until_ms = holder.until_ms if holder else min((m.until_ms for m in again), default=0)
    return delivered(grant, again, until_ms, "NO", is_final=True)


def receive_deferred(model: QueueModel, command: c.ReceiveDeferred, now_ms: int) -> Facts:
    """Deliver deferred messages by their numbers, all or none (DEF-2, DEF-3, DEF-5)."""
    with _perhaps_disabled(model):
        return _receive_deferred(model, command, now_ms)


def _receive_deferred(model: QueueModel, command: c.ReceiveDeferred, now_ms: int) -> Facts:
    if len(command.sequences) > model.limits.receive_messages_max:
        raise Refused("LIMIT_EXCEEDED")
    check_source(model, command)
    holder = model.held(command.session) if command.session is not None else None
    found = model.calls.find(command.request, command.fingerprint, "receive_deferred")
    if found is not None:
        return _received_deferred_before(model, found, holder)
    _refuse_disabled(model)
    wanted = set(command.sequences)
    session_id = command.session.session_id if command.session is not None else None
    chosen = [
        m
        for m in sorted(model.shelf(dead_letter=command.dead_letter), key=lambda m: m.sequence)
        if m.sequence in wanted
        and m.state is State.DEFERRED
        and not m.grant
        and (holder is None or m.session_id == session_id)
    ]
    if len(chosen) < len(wanted):
        raise Refused("MESSAGE_NOT_FOUND")
    if holder is not None:
        model.hear(holder.grant)
    over = [m for m in chosen if m.is_over(now_ms)]
    for message in over:  # TTL-9: who asks gets nothing, and what has expired is collected
        model.collect(message)
    if over:
        return ("expired", [m.sequence for m in over])
    return _deliver_deferred(model, command, holder, chosen, now_ms)


def _deliver_deferred(
    model: QueueModel,
    command: c.ReceiveDeferred,
    holder: Holder | None,
    chosen: list[Message],
    now_ms: int,
) -> Facts:
    if holder is not None:
        _extend(model, holder, now_ms)
        grant, until_ms, own_until_ms = holder.grant, holder.until_ms, 0
    else:
        grant = 0 if command.deletes or not chosen else model.new_grant()
        until_ms = own_until_ms = now_ms + model.settings.lock_duration_ms
    facts = delivered(0 if command.deletes else grant, chosen, until_ms, "NO", is_final=True)
    for message in chosen:
        if command.deletes:
            model.remove(message, "received and deleted")
        else:
            message.grant, message.until_ms = grant, own_until_ms
    where = command.session if command.session is not None else command.dead_letter
    numbers = [m.sequence for m in chosen]
    result: Facts = (False, 0, []) if command.deletes else (where, grant, numbers)
    if chosen:
        model.calls.keep(command.request, command.fingerprint, "receive_deferred", result, now_ms)
    return facts


def _received_deferred_before(model: QueueModel, found: Facts, holder: Holder | None) -> Facts:
    _, grant, sequences = found
    model.hear(holder.grant if holder is not None else grant)
    again = [m for m in model.under(grant) if m.state is State.DEFERRED and m.sequence in sequences]
    again.sort(key=lambda m: m.sequence)
    until_ms = holder.until_ms if holder else min((m.until_ms for m in again), default=0)
    return delivered(grant if again else 0, again, until_ms, "NO", is_final=True)


def delivered(
    grant: int, messages: Sequence[Message], until_ms: int, short: str, *, is_final: bool = False
) -> Facts:
    """Return the facts of a delivery."""
    return ("delivered", grant, described(messages), until_ms, short, is_final)


def described(messages: Sequence[Message]) -> list[Facts]:
    """Return what a receiver sees of messages."""
    return [
        (
            m.sequence,
            m.count,
            m.enqueued_ms,
            shown(m.payload),
            m.why,
            m.expires_ms,
            {name: shown(value) for name, value in m.properties.items()},
        )
        for m in messages
    ]


# --- renewing and giving back ------------------------------------------------------------------------


def renew_messages(model: QueueModel, command: c.RenewMessages, now_ms: int) -> Facts:
    """Move locks of single messages, never backwards."""
    if model.settings.requires_session and not command.dead_letter:
        raise Refused("INVALID_OPERATION")
    if len(command.tokens) > model.limits.settle_messages_max:
        raise Refused("LIMIT_EXCEEDED")
    until_ms = now_ms + model.settings.lock_duration_ms
    failures = []
    for grant, sequence in command.tokens:
        shelf = model.shelf(dead_letter=command.dead_letter)
        mine = [m for m in shelf if m.grant == grant != 0 and m.sequence == sequence]
        for message in mine:
            model.hear(grant)
            message.until_ms = max(message.until_ms, until_ms)
        if not mine:
            failures.append((grant, sequence, "MESSAGE_LOCK_LOST"))
    return ("renewed", until_ms, failures)


def renew_session(model: QueueModel, command: c.RenewSession, now_ms: int) -> Facts:
    """Move the lock of a session, never backwards (SES-18)."""
    holder = model.held(command.session)
    model.hear(holder.grant)
    holder.until_ms = max(holder.until_ms, now_ms + model.settings.lock_duration_ms)
    return ("renewed", holder.until_ms, [])


def release(model: QueueModel, command: c.ReleaseSession, now_ms: int) -> Facts:
    """Close a session (SES-20)."""
    found = model.calls.find(command.request, command.fingerprint, "release")
    if found is not None:
        return found
    model.held(command.session)
    facts = ("released", model.end_session(command.session.session_id, "closed", now_ms))
    model.calls.keep(command.request, command.fingerprint, "release", facts, now_ms)
    return facts


def break_lock(model: QueueModel, command: c.BreakLock, now_ms: int) -> Facts:
    """Close a session whoever holds it (ADD-5)."""
    found = model.calls.find(command.request, command.fingerprint, "break_lock")
    if found is not None:
        return found
    if len(command.by) > 128:
        raise Refused("LIMIT_EXCEEDED")
    holder = model.book.holders().get(command.session_id)
    if holder is None:
        return ("broken", False, "", 0)
    returned = model.end_session(command.session_id, "broken", now_ms, command.by)
    facts = ("broken", True, holder.name, returned)
    model.calls.keep(command.request, command.fingerprint, "break_lock", facts, now_ms)
    return facts
