"""The model of settlement and session state (sections 4.2, 4.3 and 5.5, DEF-3, DEF-8, MSG-8, ADD-6, ADD-7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lockstep.core import commands as c
from lockstep.core.commands import Outcome
from tests.properties.calls import Refused
from tests.properties.message import MAX_DELIVERY, Message, State
from tests.properties.receiving_rules import check_source
from tests.properties.session_book import SessionModel

if TYPE_CHECKING:
    from tests.properties.model import QueueModel

KIB = 1024
Facts = tuple[Any, ...]
_GIVES_BACK = (Outcome.ABANDON, Outcome.RELEASE)
_MAY_CHANGE = (Outcome.ABANDON, Outcome.DEFER, Outcome.DEAD_LETTER)
HEADERS_MOST = 64 * KIB
DELAY_MS_MOST = 7 * 24 * 3_600_000


def settle(model: QueueModel, command: c.Settle, now_ms: int) -> Facts:
    """Settle messages under the locks they were delivered under; each by itself (BAT-10)."""
    _check(model, command)
    found = model.calls.find(command.request, command.fingerprint, "settle")
    if found is not None:
        return found
    session_id = None
    if command.session is not None:
        model.hear(model.held(command.session).grant)
        session_id = command.session.session_id
    failures: list[Facts] = []
    for settlement in command.settlements:
        taken = _take(model, command, settlement, failures)
        for message in taken:
            message.properties |= settlement.properties
        if taken:
            model.hear(settlement.grant)
        returns = settlement.outcome in _GIVES_BACK and any(m.state is State.ACTIVE for m in taken)
        # Those that are deferred first, each kind in the order of the numbers.
        for message in sorted(taken, key=lambda m: (m.state is State.ACTIVE, m.sequence)):
            _settle_one(model, message, settlement, now_ms)
        if session_id is not None and returns:
            model.expire_session(session_id, now_ms)  # TTL-7: expired on return
    facts = ("settled", failures)
    model.calls.keep(command.request, command.fingerprint, "settle", facts, now_ms)
    return facts


def _take(
    model: QueueModel, command: c.Settle, settlement: c.Settlement, failures: list[Facts]
) -> list[Message]:
    """Return the messages that can be settled, and note the others: first those with too many properties."""
    taken: list[Message] = []
    lost: list[Facts] = []
    for sequence in settlement.sequences:
        message = _in_hand(model, command, settlement.grant, sequence)
        if message is not None and _has_too_many(message, settlement):
            failures.append((settlement.grant, sequence, "LIMIT_EXCEEDED"))
        elif message is None or message in taken:
            lost.append((settlement.grant, sequence, "MESSAGE_LOCK_LOST"))
        else:
            taken.append(message)
    failures += lost
    return taken


def _has_too_many(message: Message, settlement: c.Settlement) -> bool:
    """Whether all properties together would be larger than headers may be (section 1.3)."""
    merged = message.properties | dict(settlement.properties)
    return bool(settlement.properties) and sum(map(len, merged.values())) > HEADERS_MOST


def _check(model: QueueModel, command: c.Settle) -> None:
    check_source(model, command)
    if sum(len(s.sequences) for s in command.settlements) > model.limits.settle_messages_max:
        raise Refused("LIMIT_EXCEEDED")
    for settlement in command.settlements:
        if command.dead_letter and settlement.outcome is Outcome.DEAD_LETTER:
            raise Refused("INVALID_OPERATION")
        if max(len(settlement.reason), len(settlement.description)) > 4096:
            raise Refused("LIMIT_EXCEEDED")
        if settlement.delay_ms and settlement.outcome is not Outcome.ABANDON:
            raise Refused("INVALID_ARGUMENT")
        if not 0 <= settlement.delay_ms <= DELAY_MS_MOST:
            raise Refused("LIMIT_EXCEEDED")
        if settlement.properties and settlement.outcome not in _MAY_CHANGE:
            raise Refused("INVALID_ARGUMENT")


def _in_hand(model: QueueModel, command: c.Settle, grant: int, sequence: int) -> Message | None:
    """Return a message if this grant has it in hand; in a session the grant must be the holder's (I-4)."""
    if command.session is not None and grant != command.session.grant:
        return None
    shelf = model.shelf(dead_letter=command.dead_letter)
    mine = [m for m in shelf if m.grant == grant != 0 and m.sequence == sequence]
    return mine[0] if mine else None


def _settle_one(model: QueueModel, message: Message, settlement: c.Settlement, now_ms: int) -> None:
    """Let one message leave the hand (section 4.2); dead letters are never counted (DCN-9)."""
    counts = message.why is None
    match settlement.outcome:
        case Outcome.COMPLETE:
            model.remove(message, "completed")
        case Outcome.DEAD_LETTER:
            model.bury(message, (settlement.reason, settlement.description))
        case Outcome.DEFER:
            message.free()
            message.state = State.DEFERRED
            message.count += counts
        case Outcome.ABANDON if counts and message.state is State.DEFERRED:
            model.fail_deferred(message)
        case Outcome.ABANDON if counts and model.fail(message):
            model.bury(message, MAX_DELIVERY)
        case Outcome.ABANDON if (
            settlement.delay_ms
            and message.state is State.ACTIVE
            and not (message.session_id is None and message.is_over(now_ms))  # TTL-5
        ):
            message.free()
            message.delayed_until_ms = now_ms + settlement.delay_ms
        case _ if message.session_id is None:
            model.put_back(message, now_ms)
        case _:
            message.free()


# --- state -------------------------------------------------------------------------------------------


def get_state(model: QueueModel, command: c.GetState, _now_ms: int) -> Facts:
    """Say what the state is (SES-40)."""
    model.hear(model.held(command.session).grant)
    session = model.book.sessions[command.session.session_id]
    return ("state", command.session.session_id, session.state, session.version)


def set_state(model: QueueModel, command: c.SetState, now_ms: int) -> Facts:
    """Set the state, if it has the version that the caller means (ADD-7)."""
    found = model.calls.find(command.request, command.fingerprint, "state")
    if found is not None:
        return found
    holder = model.held(command.session)
    session = model.book.sessions[command.session.session_id]
    broken = broken_by_state(model, session, command.value, command.if_version)
    if broken:
        raise Refused(*broken)
    model.hear(holder.grant)
    session.state = command.value
    session.version = model.new_version()
    session.idle_since_ms = now_ms
    facts = ("state set", session.version)
    model.calls.keep(command.request, command.fingerprint, "state", facts, now_ms)
    return facts


def broken_by_state(
    model: QueueModel, session: SessionModel, value: bytes | None, if_version: int | None
) -> set[str]:
    """Return which rules a new state would break (SES-39, ADD-7)."""
    broken = set()
    if len(value or b"") > model.settings.max_session_state_size_in_kilobytes * KIB:
        broken.add("MESSAGE_SIZE_EXCEEDED")
    if if_version not in (None, session.version):
        broken.add("STATE_CONFLICT")
    return broken
