"""Between protobuf and the core, for messages that are sent.

Here belong the conversion of sends and the checks of what only the wire sees of a message. Never here: rules that need
the state of a partition (`core`). The law: the bytes of a message pass through as the sender wrote them, after they
were found to be a well-formed message (MSG-7).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError

from lockstep.core.commands import CancelScheduled, Send, TakeTurn
from lockstep.core.errors import InvalidRequest, LimitExceeded
from lockstep.core.ids import EntityKey
from lockstep.core.limits import (
    HEADERS_BYTES_MAX,
    ID_CHARS_MAX,
    PROPERTY_BYTES_MAX,
    TTL_MS_MAX,
    check_at_most,
)
from lockstep.internal.v1 import views_pb2 as views
from lockstep.v1 import message_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.wire.convert import fingerprint, plain_entity, request_id, session_lock
from lockstep.wire.times import duration_ms, timestamp_ms

_SEND_MESSAGES_MAX = 65_536  # what an installation may allow at most; more are not even parsed


def send_command(payload: bytes) -> Send:
    """Return the command of a SendMessagesRequest, given as its bytes.

    Raises:
        InvalidRequest and its kinds: A part of the request, or of one of its messages, is wrong.
    """
    try:
        view = views.SendMessagesRequestView.FromString(payload)
        check_at_most(
            len(view.messages), _SEND_MESSAGES_MAX, "messages in one send", "Send several batches."
        )
        request = messaging.SendMessagesRequest.FromString(payload)
    except DecodeError as error:
        raise InvalidRequest(
            "This is no SendMessagesRequest: its bytes cannot be parsed. Check the client's protos."
        ) from error
    entity = plain_entity(request.namespace, request.entity, "Sending to")
    parts = _checked_parts(request.messages, view.messages)
    return Send(
        entity=entity,
        messages=tuple(view.messages),
        session_ids=_one_or_each(parts.session_ids),
        request=request_id(request.request_id, given=request.HasField("request_id")),
        fingerprint=fingerprint(payload),
        ttls_ms=_one_or_each(parts.ttls_ms),
        due_ms=_one_or_each(parts.due_ms),
        message_ids=tuple(parts.message_ids),
    )


def wants_atomic(payload: bytes) -> bool:
    """Whether a SendMessagesRequest that was read before must be stored as one or not at all (ADD-2)."""
    return views.SendMessagesRequestView.FromString(payload).require_atomic


def turn_command(payload: bytes) -> TakeTurn:
    """Return the command of a CommitTurnRequest, given as its bytes.

    Raises:
        InvalidRequest and its kinds: A part of the request, or of one of its messages, is wrong.
    """
    try:
        request = messaging.CommitTurnRequest.FromString(payload)
    except DecodeError as error:
        raise InvalidRequest(
            "This is no CommitTurnRequest: its bytes cannot be parsed. Check the client's protos."
        ) from error
    # The fields of a send have the same numbers here, so its reading serves both.
    outputs = send_command(payload) if request.messages else None
    state = request.state
    return TakeTurn(
        entity=plain_entity(request.namespace, request.entity, "Committing a turn of"),
        session=session_lock(request.session),
        complete=array("q", request.complete_sequence_numbers),
        outputs=outputs,
        sets_state=request.HasField("state"),
        state=state.value if state.HasField("value") else None,
        if_version=state.if_version if state.HasField("if_version") else None,
        request=request_id(request.request_id, given=request.HasField("request_id")),
        fingerprint=fingerprint(payload),
    )


def copies_of(target: EntityKey, messages: Sequence[bytes], session_id: str | None) -> Send:
    """Return stored messages as a send to another queue; they are active at once, whatever they were scheduled for.

    Args:
        target: Where to.
        messages: Their bytes.
        session_id: The session they get; None = they keep theirs.
    """
    session_ids: list[str | None] = []
    ttls_ms: list[int] = []
    ids: list[str] = []
    for raw in messages:  # nothing is refused here: what is stored was found good when it was sent
        message = message_pb2.Message.FromString(raw)
        own = message.session_id if message.HasField("session_id") else None
        session_ids.append(own if session_id is None else session_id)
        ttls_ms.append(duration_ms(message.time_to_live) if message.HasField("time_to_live") else 0)
        ids.append(message.message_id)
    return Send(
        entity=target,
        messages=tuple(messages),
        session_ids=tuple(session_ids),
        ttls_ms=tuple(ttls_ms) if any(ttls_ms) else (),
        message_ids=tuple(ids),
    )


class _Parts:
    """What the broker acts on in the messages of a send; times of none are empty lists."""

    __slots__ = ("due_ms", "message_ids", "session_ids", "ttls_ms")

    def __init__(self) -> None:
        self.session_ids: list[str | None] = []
        self.ttls_ms: list[int] = []
        self.due_ms: list[int] = []
        self.message_ids: list[str] = []


_Part = TypeVar("_Part")


def _one_or_each(values: list[_Part]) -> tuple[_Part, ...]:
    """Return one value for all messages where all are the same, else one each."""
    if values and values.count(values[0]) == len(values):
        return (values[0],)
    return tuple(values)


def addressed(payload: bytes) -> tuple[EntityKey, int] | None:
    """Return where a refused send was meant to go and with how many messages; None = that cannot be told."""
    try:
        view = views.SendMessagesRequestView.FromString(payload)
        return plain_entity(view.namespace, view.entity, "Sending to"), len(view.messages)
    except (DecodeError, InvalidRequest):
        return None


def _checked_parts(messages: Sequence[message_pb2.Message], raws: Sequence[bytes]) -> _Parts:
    """Check the messages of a send and return what the broker acts on. One loop without calls: it is the hot path."""
    parts = _Parts()
    session_ids, message_ids = parts.session_ids, parts.message_ids
    for index, message in enumerate(messages):
        has = message.HasField
        session_id = message.session_id if has("session_id") else None
        partition_key = message.partition_key
        message_id = message.message_id
        message_ids.append(message_id)
        if (
            len(message_id) > ID_CHARS_MAX
            or len(partition_key) > ID_CHARS_MAX
            or len(message.reply_to_session_id) > ID_CHARS_MAX
        ):
            _refuse_long_ids(message, index)
        if partition_key and session_id is not None and partition_key != session_id:
            raise InvalidRequest(
                f"Message {index} has session id '{session_id}' and partition key '{partition_key}'; when both are"
                " set they must be equal. Leave the partition key out.",
                details={"index": str(index)},
            )
        if has("time_to_live") or has("scheduled_enqueue_time"):
            _note_times(message, index, len(messages), parts)
        session_ids.append(session_id)
    for index, raw in enumerate(raws):
        if len(raw) > PROPERTY_BYTES_MAX:
            _check_headers(messages[index], raw, index)
    return parts


def _refuse_long_ids(message: message_pb2.Message, index: int) -> None:
    for value, what in (
        (message.message_id, "message id characters"),
        (message.partition_key, "partition key characters"),
        (message.reply_to_session_id, "reply-to session id characters"),
    ):
        check_at_most(len(value), ID_CHARS_MAX, what, f"(message {index})")


def _note_times(message: message_pb2.Message, index: int, count: int, parts: _Parts) -> None:
    if message.HasField("time_to_live"):
        ttl_ms = duration_ms(message.time_to_live)
        if not 1 <= ttl_ms <= TTL_MS_MAX:
            raise LimitExceeded(
                f"Message {index} has a time to live of {ttl_ms} ms; it must be between 1 and {TTL_MS_MAX} ms. Nothing"
                " was stored. Leave it out for a message that lives as long as the queue allows (TTL-11).",
                details={"limit": "time_to_live", "observed": str(ttl_ms), "index": str(index)},
            )
        parts.ttls_ms = parts.ttls_ms or [0] * count
        parts.ttls_ms[index] = ttl_ms
    if message.HasField("scheduled_enqueue_time"):
        parts.due_ms = parts.due_ms or [0] * count
        parts.due_ms[index] = max(timestamp_ms(message.scheduled_enqueue_time), 0)


def _check_headers(message: message_pb2.Message, raw: bytes, index: int) -> None:
    for name, value in message.application_properties.items():
        size = len(name.encode()) + value.ByteSize()
        check_at_most(size, PROPERTY_BYTES_MAX, f"bytes of property '{name}'", f"(message {index})")
    headers = len(raw) - len(message.body)
    check_at_most(
        headers, HEADERS_BYTES_MAX, "bytes of all headers of a message", f"(message {index})"
    )


def cancel_scheduled_command(
    request: messaging.CancelScheduledMessagesRequest,
) -> CancelScheduled:
    """Return the command of a cancellation of scheduled messages."""
    return CancelScheduled(
        entity=plain_entity(request.namespace, request.entity, "Scheduling in"),
        sequences=array("q", request.sequence_numbers),
        request=request_id(request.request_id, given=request.HasField("request_id")),
        fingerprint=fingerprint(request.SerializeToString(deterministic=True)),
    )
