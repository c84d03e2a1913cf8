"""Between protobuf and the core, for messages and sessions; `wire.definitions` does it for queues.

Here belong the conversions and the checks of what only the wire sees. Never here: rules that need the
state of a partition (`core`). The laws: protobuf stops here; the bytes of a message pass through as the
sender wrote them, after they were found to be a well-formed message (MSG-7).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import lru_cache, partial

import xxhash
from google.protobuf.message import DecodeError

from lockstep.core.commands import (
    Accept,
    Browse,
    Cancel,
    GetState,
    Outcome,
    Receive,
    ReceiveDeferred,
    ReleaseSession,
    RenewMessages,
    RenewSession,
    SetState,
    Settle,
    Settlement,
)
from lockstep.core.entity import parse_entity_path
from lockstep.core.errors import (
    InvalidOperation,
    InvalidRequest,
    LimitExceeded,
)
from lockstep.core.ids import (
    NUMBER_MAX,
    EntityKey,
    GrantNumber,
    RequestId,
    SessionId,
    SessionLock,
    lock_token,
    split_lock_token,
    token_prefix,
)
from lockstep.core.limits import (
    ID_CHARS_MAX,
    REQUEST_CLIENT_ID_CHARS_MAX,
    check_at_most,
)
from lockstep.core.replies import Accepted, Browsed, Delivered, NotSettled
from lockstep.internal.v1 import views_pb2 as views
from lockstep.v1 import message_pb2, request_pb2, session_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.wire.amending import amended, encoded_properties, trails
from lockstep.wire.times import duration_ms, timestamp

_SETTLED_MAX = 65_536  # what an installation may allow at most
DEFAULT_WAIT_MS = 60_000
_MESSAGES_TAG = (
    views.ReceiveMessagesResponseView.DESCRIPTOR.fields_by_name["messages"].number << 3 | 2
)  # 2 = with a length
_STREAM_MESSAGES_TAG = (
    messaging.StreamMessagesResponse.DESCRIPTOR.fields_by_name["messages"].number << 3 | 2
)
WAIT_MAX_MS = 24 * 3_600_000
DEAD_LETTER_REASON = "DeadLetterReason"
DEAD_LETTER_DESCRIPTION = "DeadLetterErrorDescription"


# --- parts -------------------------------------------------------------------------------------------


def fingerprint(payload: bytes) -> int:
    """Return a hash of a call's payload that storage can keep."""
    return xxhash.xxh3_64_intdigest(payload) & NUMBER_MAX


def request_id(message: request_pb2.RequestId, *, given: bool) -> RequestId | None:
    """Return a call's id; None = it has none."""
    if not given:
        return None
    length = len(message.client_id)
    if not 1 <= length <= REQUEST_CLIENT_ID_CHARS_MAX or not 1 <= message.counter <= NUMBER_MAX:
        raise LimitExceeded(
            f"A request id needs a client id of 1 to {REQUEST_CLIENT_ID_CHARS_MAX} characters and a counter of 1 to"
            f" {NUMBER_MAX}; {length} characters and {message.counter} were given.",
            details={
                "limit": "request_id",
                "observed": f"{length} characters, counter {message.counter}",
            },
        )
    return RequestId(message.client_id, message.counter)


def session_lock(message: session_pb2.SessionLock) -> SessionLock:
    """Return what the holder of a session shows."""
    grant, sequence = split_lock_token(message.lock_token)
    if sequence:
        raise InvalidRequest(
            "This is the lock token of a message. Send the one of the session, as it was received."
        )
    return SessionLock(SessionId(message.session_id), grant)


def plain_entity(namespace: str, path: str, what: str) -> EntityKey:
    """Return the queue that a path names; `what` begins the error when it names a dead-letter store."""
    entity, dead_letter = parse_entity_path(namespace, path)
    if dead_letter:
        raise InvalidOperation(
            f"{what} a dead-letter store is not possible: it has no sessions and takes no sends (SND-14, SES-16)."
            " Name the queue itself.",
            details={"entity": path},
        )
    return entity


def wait_ms(
    request: messaging.AcceptSessionRequest | messaging.ReceiveMessagesRequest,
) -> int:
    """Return how long a call may wait: absent = 60 s, at most a day."""
    if not request.HasField("max_wait"):
        return DEFAULT_WAIT_MS
    wait = duration_ms(request.max_wait)
    if wait < 0:
        raise InvalidRequest(
            f"max_wait must not be negative; {wait} ms was given. Use 0 for no waiting.",
            details={"observed": str(wait)},
        )
    return min(wait, WAIT_MAX_MS)


# --- accept, receive, settle -------------------------------------------------------------------------


def accept_command(request: messaging.AcceptSessionRequest, address: str = "") -> Accept:
    """Return the command of an accept; `address` is where it came from."""
    session_id = SessionId(request.session_id) if request.HasField("session_id") else None
    what = ("accept", request.namespace, request.entity, session_id, request.holder_client_id)
    return Accept(
        entity=plain_entity(request.namespace, request.entity, "Accepting a session of"),
        session_id=session_id,
        holder=request.holder_client_id,
        request=request_id(request.request_id, given=request.HasField("request_id")),
        fingerprint=fingerprint(repr(what).encode()),
        address=address[:ID_CHARS_MAX],
    )


def accept_response(reply: Accepted, state: bytes | None) -> messaging.AcceptSessionResponse:
    """Return the response of a granted accept."""
    return messaging.AcceptSessionResponse(
        session=session_pb2.SessionLock(
            session_id=reply.session.session_id, lock_token=lock_token(reply.session.grant)
        ),
        locked_until=timestamp(reply.locked_until_ms),
        state=session_pb2.SessionState(value=state, version=reply.state_version),
        grant=reply.session.grant,
    )


def receive_command(request: messaging.ReceiveMessagesRequest) -> Receive:
    """Return the command of a receive."""
    entity, dead_letter = parse_entity_path(request.namespace, request.entity)
    deletes = _deletes(request.mode)
    check_at_most(
        len(request.receiver_client_id),
        ID_CHARS_MAX,
        "receiver client id characters",
        "Use a shorter id.",
    )
    session = session_lock(request.session) if request.HasField("session") else None
    what = ("receive", entity, dead_letter, session, request.max_messages, deletes)
    return Receive(
        entity=entity,
        dead_letter=dead_letter,
        session=session,
        max_messages=request.max_messages,
        request=request_id(request.request_id, given=request.HasField("request_id")),
        fingerprint=fingerprint(repr(what).encode()),
        deletes=deletes,
        receiver=request.receiver_client_id,
    )


def _deletes(mode: messaging.ReceiveMode.ValueType) -> bool:
    """Return whether a mode is receive-and-delete."""
    if mode not in messaging.ReceiveMode.values():
        raise InvalidRequest(f"{mode} is no receive mode (RCV-2).", details={"observed": str(mode)})
    return mode == messaging.RECEIVE_MODE_RECEIVE_AND_DELETE


def receive_deferred_command(
    request: messaging.ReceiveDeferredMessagesRequest,
) -> ReceiveDeferred:
    """Return the command of a receive of deferred messages."""
    entity, dead_letter = parse_entity_path(request.namespace, request.entity)
    return ReceiveDeferred(
        entity=entity,
        dead_letter=dead_letter,
        session=session_lock(request.session) if request.HasField("session") else None,
        sequences=array("q", request.sequence_numbers),
        request=request_id(request.request_id, given=request.HasField("request_id")),
        fingerprint=fingerprint(request.SerializeToString(deterministic=True)),
        deletes=_deletes(request.mode),
    )


def receive_response(reply: Delivered, messages: Sequence[bytes]) -> bytes:
    """Return the bytes of a ReceiveMessagesResponse; `messages` are the bytes of what `reply` delivers.

    A message of protobuf may be written as parts, one behind the other. So the messages are joined here, which costs
    a tenth of what it costs to have them copied into a message object first (ADR 0003).
    """
    if reply.amendments:
        messages = amended(messages, reply.amendments)
    if reply.dead_letters:
        added = [_dead_letter_properties(i.reason, i.description) for i in reply.dead_letters]
        messages = [raw + more for raw, more in zip(messages, added, strict=True)]
    response = views.ReceiveMessagesResponseView(
        sequence_numbers=reply.sequences,
        delivery_counts=reply.counts,
        enqueued_times_unix_ms=reply.enqueued_ms,
        expires_times_unix_ms=reply.expires_ms,
        trails=trails(reply.amendments),
        short_reason=reply.short.value,  # type: ignore[arg-type]  # the same numbers as ShortReason
    )
    if reply.sequences and reply.grant:
        response.lock_token_prefix = token_prefix(reply.grant)
    if reply.locked_until_ms:
        response.locked_until.CopyFrom(timestamp(reply.locked_until_ms))
    parts = [part for raw in messages for part in (_message_header(len(raw)), raw)]
    parts.append(response.SerializeToString())
    return b"".join(parts)


@lru_cache(maxsize=65_536)
def _message_header(size: int, tag: int = _MESSAGES_TAG) -> bytes:
    """Return what stands before a message of so many bytes in a response: the field's tag and the length."""
    left, header = size, bytearray((tag,))
    while left > 0x7F:
        header.append(left & 0x7F | 0x80)
        left >>= 7
    header.append(left)
    return bytes(header)


def stream_messages(messages: bytes) -> bytes:
    """Return the bytes of a StreamMessagesResponse that delivers those of a ReceiveMessagesResponse."""
    return _message_header(len(messages), _STREAM_MESSAGES_TAG) + messages


def browse_command(request: messaging.PeekMessagesRequest) -> Browse:
    """Return the command of a look at messages."""
    entity, dead_letter = parse_entity_path(request.namespace, request.entity)
    session_id = SessionId(request.session_id) if request.HasField("session_id") else None
    if session_id is not None:
        check_at_most(len(session_id), ID_CHARS_MAX, "session id characters", "Use a shorter id.")
    return Browse(
        entity,
        dead_letter,
        session_id,
        request.from_sequence_number,
        request.max_messages,
        request.dead_letter_reason if request.HasField("dead_letter_reason") else None,
    )


def browse_response(reply: Browsed, messages: Sequence[bytes], cursor: str) -> bytes:
    """Return the bytes of a PeekMessagesResponse; `cursor` is where the next look goes on."""
    rest = messaging.PeekMessagesResponse(
        scheduled_indexes=reply.scheduled,
        deferred_indexes=reply.deferred,
        has_more=reply.has_more,
        next_cursor=cursor,
    )
    return receive_response(reply.delivered, messages) + rest.SerializeToString()


def _dead_letter_properties(reason: str, description: str) -> bytes:
    """Return bytes that, behind those of a message, add the properties of DLQ-6 to it."""
    given = {DEAD_LETTER_REASON: reason, DEAD_LETTER_DESCRIPTION: description}
    added = message_pb2.Message()
    for name, text in given.items():
        if text:
            added.application_properties[name].string_value = text
    return added.SerializeToString()


def settle_command(payload: bytes) -> Settle:
    """Return the command of a SettleMessagesRequest, given as its bytes."""
    try:
        request = messaging.SettleMessagesRequest.FromString(payload)
    except DecodeError as error:
        raise InvalidRequest(
            f"This is no SettleMessagesRequest: {error}. Check the client's protos."
        ) from error
    entity, dead_letter = parse_entity_path(request.namespace, request.entity)
    session = session_lock(request.session) if request.HasField("session") else None
    return Settle(
        entity=entity,
        dead_letter=dead_letter,
        session=session,
        settlements=settlements_of(request.settlements, session),
        request=request_id(request.request_id, given=request.HasField("request_id")),
        fingerprint=fingerprint(payload),
    )


def settlements_of(
    given: Sequence[messaging.Settlement], session: SessionLock | None
) -> tuple[Settlement, ...]:
    """Return what a caller decides about messages, under a session's lock or without.

    Raises:
        InvalidRequest and its kinds: It names nothing, or something wrong.
    """
    _check_settlements(given)
    settlements: list[Settlement] = []
    for settlement in given:
        settlements.extend(_settlements(settlement, session))
    if not settlements:
        raise InvalidRequest(
            "A settlement needs at least one message. Name them by token or sequence number."
        )
    return tuple(settlements)


def release_of(reply: Delivered) -> Settlement:
    """Return the settlement that gives back what was delivered, uncounted."""
    return Settlement(Outcome.RELEASE, reply.grant, reply.sequences)


def _check_settlements(settlements: Sequence[messaging.Settlement]) -> None:
    """Refuse, before anything costs time, what no installation allows."""
    named = len(settlements)
    if named <= _SETTLED_MAX:
        named = sum(len(s.lock_tokens) + len(s.sequence_numbers) for s in settlements)
        if any(not s.lock_tokens and not s.sequence_numbers for s in settlements):
            raise InvalidRequest(
                "A settlement needs at least one message. Name them by token or sequence number."
            )
    check_at_most(named, _SETTLED_MAX, "messages in one call", "Settle fewer.")


_OUTCOMES = {
    "complete": Outcome.COMPLETE,
    "abandon": Outcome.ABANDON,
    "release": Outcome.RELEASE,
    "dead_letter": Outcome.DEAD_LETTER,
    "defer": Outcome.DEFER,
}


def _settlements(settlement: messaging.Settlement, session: SessionLock | None) -> list[Settlement]:
    chosen = settlement.WhichOneof("outcome")
    if chosen is None:
        raise InvalidRequest(
            "A settlement needs an outcome: complete, abandon, release, dead_letter or defer."
        )
    outcome = _OUTCOMES[chosen]
    reason, description = settlement.dead_letter.reason, settlement.dead_letter.description
    delay_ms, properties = 0, {}
    if outcome in (Outcome.ABANDON, Outcome.DEFER, Outcome.DEAD_LETTER):
        properties = encoded_properties(getattr(settlement, chosen).properties)
    if settlement.abandon.HasField("delay"):
        delay_ms = duration_ms(settlement.abandon.delay)
    part = partial(
        Settlement,
        outcome,
        reason=reason,
        description=description,
        properties=properties,
        delay_ms=delay_ms,
    )
    made: list[Settlement] = []
    if settlement.sequence_numbers:
        if session is None:
            raise InvalidRequest(
                "Messages can be named by sequence number only under a session's lock. Use their lock tokens."
            )
        if min(settlement.sequence_numbers) < 1:
            raise InvalidRequest(
                f"Sequence numbers begin at 1; {min(settlement.sequence_numbers)} was given. Nothing was settled."
            )
        numbers = array("q", settlement.sequence_numbers)
        made.append(part(session.grant, numbers))
    by_grant: dict[GrantNumber, array[int]] = {}
    for token in settlement.lock_tokens:
        grant, sequence = split_lock_token(token)
        by_grant.setdefault(grant, array("q")).append(sequence)
    for grant, sequences in by_grant.items():
        made.append(part(grant, sequences))
    return made


def failures(items: Sequence[NotSettled]) -> list[messaging.SettlementFailure]:
    """Return why messages were not settled or renewed."""
    return [
        messaging.SettlementFailure(
            sequence_number=item.sequence,
            lock_token=lock_token(item.grant, item.sequence),
            reason=item.error.reason,
            description=item.error.message,
        )
        for item in items
    ]


# --- the rest ----------------------------------------------------------------------------------------


def renew_messages_command(request: messaging.RenewMessageLocksRequest) -> RenewMessages:
    """Return the command of a renewal of message locks."""
    entity, dead_letter = parse_entity_path(request.namespace, request.entity)
    check_at_most(len(request.lock_tokens), _SETTLED_MAX, "messages in one call", "Renew fewer.")
    tokens = tuple(split_lock_token(token) for token in request.lock_tokens)
    return RenewMessages(entity, dead_letter, tokens)


def renew_session_command(request: messaging.RenewSessionLockRequest) -> RenewSession:
    """Return the command of a renewal of a session's lock."""
    entity = plain_entity(request.namespace, request.entity, "Renewing a session of")
    return RenewSession(entity, session_lock(request.session))


def release_command(request: messaging.ReleaseSessionRequest) -> ReleaseSession:
    """Return the command of a release."""
    return ReleaseSession(
        entity=plain_entity(request.namespace, request.entity, "Releasing a session of"),
        session=session_lock(request.session),
        request=request_id(request.request_id, given=request.HasField("request_id")),
        fingerprint=fingerprint(request.SerializeToString(deterministic=True)),
    )


def get_state_command(request: messaging.GetSessionStateRequest) -> GetState:
    """Return the command of a read of session state."""
    entity = plain_entity(request.namespace, request.entity, "Reading a session's state of")
    return GetState(entity, session_lock(request.session))


def set_state_command(request: messaging.SetSessionStateRequest) -> SetState:
    """Return the command of a write of session state."""
    return SetState(
        entity=plain_entity(request.namespace, request.entity, "Setting a session's state of"),
        session=session_lock(request.session),
        value=request.value if request.HasField("value") else None,
        if_version=request.if_version if request.HasField("if_version") else None,
        request=request_id(request.request_id, given=request.HasField("request_id")),
        fingerprint=fingerprint(request.SerializeToString(deterministic=True)),
    )


def cancel_command(request: messaging.CancelRequestRequest) -> Cancel:
    """Return the command that undoes a call."""
    entity, _ = parse_entity_path(request.namespace, request.entity)
    named = request_id(request.request_id, given=True)
    assert named is not None
    return Cancel(entity, named)
