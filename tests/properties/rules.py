"""The model of each call, one function for each command.

Each checks first and changes the model afterwards, so that a refused call leaves it untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lockstep.core import commands as c
from lockstep.core.commands import Outcome
from lockstep.core.ids import SessionLock
from tests.properties.calls import Refused, shown
from tests.properties.session_book import SessionModel
from tests.properties.shelf import Message, Shelf, counts_as_failure

if TYPE_CHECKING:
    from tests.properties.model import QueueModel

KIB = 1024
MAX_DELIVERY = ("MaxDeliveryCountExceeded", "…")
NOTHING = ("nothing",)
Facts = tuple[Any, ...]


# --- sending -----------------------------------------------------------------------------------------


def _send(model: QueueModel, command: c.Send, now_ms: int) -> Facts:
    found = model.calls.find(command.request, command.fingerprint, "send")
    if found is not None:
        return found
    broken = _broken_by_send(model, command)
    if broken:
        raise Refused(*broken)
    first = model.last_sequence + 1
    count = len(command.messages)
    ids = command.session_ids * count if len(command.session_ids) == 1 else command.session_ids
    for sequence, (payload, session_id) in enumerate(
        zip(command.messages, ids, strict=True), first
    ):
        message = {"sequence": sequence, "payload": payload, "count": 0, "enqueued_ms": now_ms}
        if model.settings.requires_session:
            model.book.session(session_id or "").messages.append(message)
        else:
            model.main.messages.append(message)
    model.last_sequence += count
    facts = ("sent", first, count)
    model.calls.keep(command.request, command.fingerprint, "send", facts, now_ms)
    return facts


def _broken_by_send(model: QueueModel, command: c.Send) -> set[str]:
    sizes = [len(payload) for payload in command.messages]
    broken = set()
    if not sizes or len(command.session_ids) not in (1, len(sizes)):
        broken.add("INVALID_ARGUMENT")
    if len(sizes) > model.limits.send_messages_max:
        broken.add("LIMIT_EXCEEDED")
    if any(len(i) > 128 for i in command.session_ids if i is not None):
        broken.add("LIMIT_EXCEEDED")
    if max(sizes, default=0) > model.settings.max_message_size_in_kilobytes * KIB:
        broken.add("MESSAGE_SIZE_EXCEEDED")
    if sum(sizes) > model.limits.send_bytes_max and len(sizes) > 1:
        broken.add("MESSAGE_SIZE_EXCEEDED")
    if model.size_bytes() + sum(sizes) > model.settings.max_size_in_megabytes * KIB * KIB:
        broken.add("QUOTA_EXCEEDED")
    if model.others + len(model.stored()) + len(sizes) > model.limits.partition_messages_max:
        broken.add("QUOTA_EXCEEDED")
    if model.settings.requires_session and None in command.session_ids:
        broken.add("INVALID_OPERATION")
    return broken


# --- accepting and receiving -------------------------------------------------------------------------


def _accept(model: QueueModel, command: c.Accept, now_ms: int) -> Facts:
    if not model.settings.requires_session:
        raise Refused("INVALID_OPERATION")
    found = model.calls.find(command.request, command.fingerprint, "accept")
    if found == NOTHING:
        return ("none available", "final")
    if found is not None:
        lock = SessionLock(*found)
        return _accepted(lock, _hear(model.held(lock)))
    if command.session_id is None and model.settings.accept_next == "disabled":
        raise Refused("INVALID_OPERATION")
    if max(len(command.session_id or ""), len(command.holder)) > 128:
        raise Refused("LIMIT_EXCEEDED")
    session_id = command.session_id
    if session_id is None:
        session_id = model.book.next_runnable()
        if session_id is None:
            model.calls.note_waiting(command.request)
            return ("none available", "for now")
    holder = model.book.session(session_id).holder
    if holder is not None:
        details = {"holder": holder.name, "locked_until_ms": str(holder.until_ms)}
        raise Refused("SESSION_CANNOT_BE_LOCKED", details=details)
    grant = model.new_grant()
    until_ms = now_ms + model.settings.lock_duration_ms
    session = model.book.grant(
        session_id, grant=grant, name=command.holder, now_ms=now_ms, until_ms=until_ms
    )
    model.calls.keep(command.request, command.fingerprint, "accept", (session_id, grant), now_ms)
    return _accepted(SessionLock(session_id, grant), session)


def _accepted(lock: SessionLock, session: SessionModel) -> Facts:
    assert session.holder is not None
    return ("accepted", *lock, session.holder.until_ms, session.state is not None, session.version)


def _hear(session: SessionModel) -> SessionModel:
    """The holder is back (ADD-4)."""
    assert session.holder is not None
    session.holder.is_heard = True
    return session


def _check_session_use(model: QueueModel, command: Any) -> None:
    needs_session = model.settings.requires_session and not command.dead_letter
    if needs_session != (command.session is not None):
        raise Refused("INVALID_OPERATION")


def _receive(model: QueueModel, command: c.Receive, now_ms: int) -> Facts:
    _check_session_use(model, command)
    if not 1 <= command.max_messages <= model.limits.receive_messages_max:
        raise Refused("LIMIT_EXCEEDED")
    if command.session is not None:
        return _receive_session(model, model.held(command.session), command, now_ms)
    found = model.calls.find(command.request, command.fingerprint, "receive")
    if found == NOTHING:
        return _delivered(0, [], 0, "NO_MORE_MESSAGES", is_final=True)
    if found is not None:
        return _received_before(model, found)
    shelf = model.shelf(dead_letter=command.dead_letter)
    chosen, short = model.chosen(shelf.ready(), command.max_messages)
    if not chosen:
        model.calls.note_waiting(command.request)
        return _delivered(0, [], 0, short)
    grant = model.new_grant()
    until_ms = now_ms + model.settings.lock_duration_ms
    shelf.lock(chosen, grant, until_ms)
    result = (command.dead_letter, grant, [m["sequence"] for m in chosen])
    model.calls.keep(command.request, command.fingerprint, "receive", result, now_ms)
    return _delivered(grant, chosen, until_ms, short)


def _receive_session(
    model: QueueModel, session: SessionModel, command: c.Receive, now_ms: int
) -> Facts:
    holder = session.holder
    assert holder is not None
    found = model.calls.find(command.request, command.fingerprint, "receive")
    _hear(session)
    if found == NOTHING:
        return _delivered(0, [], holder.until_ms, "NO_MORE_MESSAGES", is_final=True)
    if found is not None:
        _, _, sequences = found
        again = [m for m in session.messages if m["sequence"] in holder.hand & set(sequences)]
        return _delivered(holder.grant, again, holder.until_ms, "NO", is_final=True)
    chosen, short = model.chosen(session.deliverable, command.max_messages)
    if model.settings.session_lock_extension == "on_receive":
        holder.until_ms = max(holder.until_ms, now_ms + model.settings.lock_duration_ms)
    if chosen:
        sequences = [m["sequence"] for m in chosen]
        holder.hand |= set(sequences)
        result = (command.session, holder.grant, sequences)
        model.calls.keep(command.request, command.fingerprint, "receive", result, now_ms)
    else:
        model.calls.note_waiting(command.request)
    return _delivered(holder.grant, chosen, holder.until_ms, short)


def _received_before(model: QueueModel, found: tuple[Any, ...]) -> Facts:
    dead_letter, grant, sequences = found
    shelf = model.shelf(dead_letter=dead_letter)
    shelf.hear(grant)
    held = shelf.locks.get(grant, {})
    again = [shelf.find(sequence) for sequence in sequences if sequence in held]
    until_ms = min((held[m["sequence"]] for m in again), default=0)
    return _delivered(grant, again, until_ms, "NO", is_final=True)


def _delivered(
    grant: int, messages: Sequence[Message], until_ms: int, short: str, *, is_final: bool = False
) -> Facts:
    described = [
        (m["sequence"], m["count"], m["enqueued_ms"], shown(m["payload"]), m.get("why"))
        for m in messages
    ]
    return ("delivered", grant, described, until_ms, short, is_final)


def _renew_messages(model: QueueModel, command: c.RenewMessages, now_ms: int) -> Facts:
    if model.settings.requires_session and not command.dead_letter:
        raise Refused("INVALID_OPERATION")
    if len(command.tokens) > model.limits.settle_messages_max:
        raise Refused("LIMIT_EXCEEDED")
    shelf = model.shelf(dead_letter=command.dead_letter)
    until_ms = now_ms + model.settings.lock_duration_ms
    failures = []
    for grant, sequence in command.tokens:
        if shelf.is_locked(grant, sequence):
            shelf.hear(grant)
            shelf.renew(grant, sequence, until_ms)
        else:
            failures.append((grant, sequence, "MESSAGE_LOCK_LOST"))
    return ("renewed", until_ms, failures)


def _renew_session(model: QueueModel, command: c.RenewSession, now_ms: int) -> Facts:
    holder = _hear(model.held(command.session)).holder
    assert holder is not None
    holder.until_ms = max(holder.until_ms, now_ms + model.settings.lock_duration_ms)
    return ("renewed", holder.until_ms, [])


def _release(model: QueueModel, command: c.ReleaseSession, now_ms: int) -> Facts:
    found = model.calls.find(command.request, command.fingerprint, "release")
    if found is not None:
        return found
    session = model.held(command.session)
    facts = ("released", len(session.hand))
    model.book.end_grant(command.session.session_id, "closed")
    model.calls.keep(command.request, command.fingerprint, "release", facts, now_ms)
    return facts


# --- settling ----------------------------------------------------------------------------------------


def _settle(model: QueueModel, command: c.Settle, now_ms: int) -> Facts:
    _check_session_use(model, command)
    if sum(len(s.sequences) for s in command.settlements) > model.limits.settle_messages_max:
        raise Refused("LIMIT_EXCEEDED")
    for settlement in command.settlements:
        if command.dead_letter and settlement.outcome is Outcome.DEAD_LETTER:
            raise Refused("INVALID_OPERATION")
        if max(len(settlement.reason), len(settlement.description)) > 4096:
            raise Refused("LIMIT_EXCEEDED")
    found = model.calls.find(command.request, command.fingerprint, "settle")
    if found is not None:
        return found
    failures: list[Facts] = []
    if command.session is not None:
        session = _hear(model.held(command.session))
        for settlement in command.settlements:
            failures += _settle_in_session(model, session, settlement)
    else:
        shelf = model.shelf(dead_letter=command.dead_letter)
        for settlement in command.settlements:
            failures += _settle_on_shelf(model, shelf, settlement)
    facts = ("settled", failures)
    model.calls.keep(command.request, command.fingerprint, "settle", facts, now_ms)
    return facts


def _settle_in_session(
    model: QueueModel, session: SessionModel, settlement: c.Settlement
) -> list[Facts]:
    assert session.holder is not None
    hand = session.holder.hand
    taken, failures = [], []
    for sequence in settlement.sequences:
        if settlement.grant == session.holder.grant and sequence in hand:
            hand.remove(sequence)
            taken.append(sequence)
        else:
            failures.append((settlement.grant, sequence, "MESSAGE_LOCK_LOST"))
    for message in [m for m in session.messages if m["sequence"] in taken]:
        if _leaves(model, message, settlement, is_dead_letter=False):
            session.messages.remove(message)
    return failures


def _settle_on_shelf(model: QueueModel, shelf: Shelf, settlement: c.Settlement) -> list[Facts]:
    taken, failures = [], []
    for sequence in settlement.sequences:
        if shelf.is_locked(settlement.grant, sequence):
            shelf.hear(settlement.grant)
            taken.append(shelf.unlock(settlement.grant, sequence))
        else:
            failures.append((settlement.grant, sequence, "MESSAGE_LOCK_LOST"))
    for message in sorted(taken, key=lambda m: m["sequence"]):
        if _leaves(model, message, settlement, is_dead_letter=shelf is model.dead):
            shelf.messages.remove(message)
    return failures


def _leaves(
    model: QueueModel, message: Message, settlement: c.Settlement, *, is_dead_letter: bool
) -> bool:
    """Whether a settled message leaves its place; it is counted, or becomes a dead letter, here."""
    match settlement.outcome:
        case Outcome.COMPLETE:
            return True
        case Outcome.DEAD_LETTER:
            model.bury(message, (settlement.reason, settlement.description))
            return True
        case outcome if counts_as_failure(outcome) and not is_dead_letter and model.fail(message):
            model.bury(message, MAX_DELIVERY)
            return True
    return False


# --- state, and undoing ------------------------------------------------------------------------------


def _get_state(model: QueueModel, command: c.GetState, _now_ms: int) -> Facts:
    session = _hear(model.held(command.session))
    return ("state", command.session.session_id, session.state, session.version)


def _set_state(model: QueueModel, command: c.SetState, now_ms: int) -> Facts:
    found = model.calls.find(command.request, command.fingerprint, "state")
    if found is not None:
        return found
    session = model.held(command.session)
    if len(command.value or b"") > model.settings.max_session_state_size_in_kilobytes * KIB:
        raise Refused("MESSAGE_SIZE_EXCEEDED")
    _hear(session)
    session.state = command.value
    session.version += 1
    facts = ("state set", session.version)
    model.calls.keep(command.request, command.fingerprint, "state", facts, now_ms)
    return facts


def _cancel(model: QueueModel, command: c.Cancel, now_ms: int) -> Facts:
    call = model.calls.calls.get(command.request)
    if call is None:
        if not model.calls.is_expired(command.request):
            model.calls.keep(command.request, 0, "cancelled", (), now_ms)
        return ("cancelled", False)
    undone = False
    if call.result == NOTHING:
        return ("cancelled", False)
    if call.kind == "accept" and model.book.held(*call.result) is not None:
        model.book.end_grant(call.result[0], "cancelled")
        undone = True
    elif call.kind == "receive":
        undone = _undo_receive(model, *call.result)
    if undone:
        model.calls.keep(command.request, call.fingerprint, "cancelled", (), now_ms)
    return ("cancelled", undone)


def _give_up(model: QueueModel, command: c.GiveUp, now_ms: int) -> Facts:
    if command.request not in model.calls.calls:
        model.calls.keep(command.request, command.fingerprint, command.kind, NOTHING, now_ms)
    return ("cancelled", False)


def _undo_receive(
    model: QueueModel, where: SessionLock | bool, grant: int, sequences: list[int]
) -> bool:
    if isinstance(where, SessionLock):
        session = model.book.held(*where)
        if session is None or session.holder is None:
            return False
        back = session.holder.hand & set(sequences)
        session.holder.hand -= back
        return bool(back)
    shelf = model.shelf(dead_letter=where)
    back = set(shelf.locks.get(grant, {}))
    for sequence in back:
        shelf.unlock(grant, sequence)
    return bool(back)


def _look_at_sessions(model: QueueModel, _command: Any, _now_ms: int) -> Facts:
    assert not model.settings.requires_session, "what a session queue shows is compared elsewhere"
    raise Refused("INVALID_OPERATION")


RULES: dict[type, Callable[..., Facts]] = {
    c.Send: _send,
    c.Accept: _accept,
    c.Receive: _receive,
    c.Settle: _settle,
    c.RenewMessages: _renew_messages,
    c.RenewSession: _renew_session,
    c.ReleaseSession: _release,
    c.GetState: _get_state,
    c.SetState: _set_state,
    c.Cancel: _cancel,
    c.GiveUp: _give_up,
    c.ListSessions: _look_at_sessions,
    c.GetSession: _look_at_sessions,
}
