"""A message as a sender writes it.

Here belong the type and what a sender's own process can check about it. Never here: what only the
broker knows of a message (`received`), the limits of a queue. The law: a message never changes once
it was made, so it may be sent again, and by several senders at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from lockstep.client.values import (
    PropertyValue,
    check_id,
    datetime_to_timestamp,
    duration_to_timedelta,
    read_properties,
    set_properties,
    timedelta_to_duration,
    timestamp_to_datetime,
)
from lockstep.core.errors import InvalidRequest
from lockstep.v1 import message_pb2

DEAD_LETTER_REASON: Final = "DeadLetterReason"
DEAD_LETTER_DESCRIPTION: Final = "DeadLetterErrorDescription"
_BROKER_PROPERTIES: Final = (DEAD_LETTER_REASON, DEAD_LETTER_DESCRIPTION, "DeadLetterSource")


class MessageContent:
    """What a sender wrote; readable alike on a message to send and on a received one."""

    __slots__ = ("_wire",)

    _wire: message_pb2.Message

    @property
    def body(self) -> bytes | None:
        """The body; None = no body."""
        return self._wire.body if self._wire.HasField("body") else None

    @property
    def session_id(self) -> str | None:
        """The session that the message belongs to."""
        return self._wire.session_id if self._wire.HasField("session_id") else None

    @property
    def message_id(self) -> str | None:
        """What the application calls the message."""
        return self._wire.message_id or None

    @property
    def subject(self) -> str | None:
        """What the message is about."""
        return self._wire.subject or None

    @property
    def correlation_id(self) -> str | None:
        """The message that this one answers."""
        return self._wire.correlation_id or None

    @property
    def content_type(self) -> str | None:
        """The media type of the body."""
        return self._wire.content_type or None

    @property
    def reply_to(self) -> str | None:
        """The entity to answer to."""
        return self._wire.reply_to or None

    @property
    def reply_to_session_id(self) -> str | None:
        """The session id that an answer should carry."""
        wire = self._wire
        return wire.reply_to_session_id if wire.HasField("reply_to_session_id") else None

    @property
    def to(self) -> str | None:
        """Opaque to the broker."""
        return self._wire.to or None

    @property
    def partition_key(self) -> str | None:
        """What chooses the partition where there is no session."""
        return self._wire.partition_key if self._wire.HasField("partition_key") else None

    @property
    def time_to_live(self) -> timedelta | None:
        """How long the message lives after it was enqueued; None = as long as the queue allows."""
        wire = self._wire
        return duration_to_timedelta(wire.time_to_live) if wire.HasField("time_to_live") else None

    @property
    def scheduled_enqueue_time_utc(self) -> datetime | None:
        """When the message becomes visible; None = at once."""
        wire = self._wire
        if not wire.HasField("scheduled_enqueue_time"):
            return None
        return timestamp_to_datetime(wire.scheduled_enqueue_time)

    @property
    def application_properties(self) -> dict[str, PropertyValue]:
        """The application's own properties, made anew at each access."""
        return read_properties(self._wire)


class Message(MessageContent):
    """A message to send.

    It holds its wire form from the start, so sending it costs little; what the broker adds is on
    `ReceivedMessage` (MSG-2).
    """

    __slots__ = ()

    def __init__(  # noqa: PLR0913  # one argument for each property that a sender may set
        self,
        body: bytes | str | None = None,
        *,
        session_id: str | None = None,
        message_id: str | None = None,
        subject: str | None = None,
        correlation_id: str | None = None,
        content_type: str | None = None,
        reply_to: str | None = None,
        reply_to_session_id: str | None = None,
        to: str | None = None,
        partition_key: str | None = None,
        time_to_live: timedelta | None = None,
        scheduled_enqueue_time_utc: datetime | None = None,
        application_properties: Mapping[str, PropertyValue] | None = None,
    ) -> None:
        """Make a message.

        Args:
            body: Any bytes; text is stored as UTF-8. None is no body, which differs from an empty one.
            session_id: The session, at most 128 characters; required on a session queue. An empty
                text is a session id of its own.
            message_id: Chosen by the application, at most 128 characters.
            subject: What the message is about; opaque to the broker.
            correlation_id: The message that this one answers; opaque to the broker.
            content_type: The media type of the body; opaque to the broker.
            reply_to: The entity to answer to; opaque to the broker.
            reply_to_session_id: The session id that an answer should carry, at most 128 characters.
            to: Opaque to the broker; has no effect on routing.
            partition_key: At most 128 characters; equal to `session_id` if both are given.
            time_to_live: How long the message lives after it was enqueued; more than zero (TTL-11).
            scheduled_enqueue_time_utc: When it becomes visible; without a zone it counts as UTC.
            application_properties: The application's own: bool, int, float, str, bytes, datetime, UUID.

        Raises:
            TypeError: An argument is of a wrong type.
            LimitExceeded: An id is longer than 128 characters.
            InvalidRequest: `partition_key` and `session_id` differ, or `time_to_live` is not positive.
        """
        check_id(session_id, "session_id")
        check_id(message_id, "message_id")
        check_id(reply_to_session_id, "reply_to_session_id")
        check_id(partition_key, "partition_key")
        _check_same(partition_key, session_id)
        # In the protos an absent text and an empty one are the same, except for those that say "optional".
        wire = self._wire = message_pb2.Message(
            message_id=message_id or "",
            session_id=session_id,
            correlation_id=correlation_id or "",
            subject=subject or "",
            to=to or "",
            reply_to=reply_to or "",
            reply_to_session_id=reply_to_session_id,
            content_type=content_type or "",
            partition_key=partition_key,
        )
        if body is not None:
            wire.body = body if type(body) is bytes else _body_bytes(body)
        if time_to_live is not None:
            _check_positive(time_to_live)
            wire.time_to_live.CopyFrom(timedelta_to_duration(time_to_live))
        if scheduled_enqueue_time_utc is not None:
            wire.scheduled_enqueue_time.CopyFrom(datetime_to_timestamp(scheduled_enqueue_time_utc))
        if application_properties:
            set_properties(wire, application_properties)

    @classmethod
    def from_received(cls, received: MessageContent) -> Message:
        """Return a new message with the body and the sender's properties of a received one (MSG-10).

        What the broker added is left out, the reason of a dead letter too, so the copy starts afresh.
        """
        copy = cls()
        copy._wire.CopyFrom(received._wire)
        for name in _BROKER_PROPERTIES:
            copy._wire.application_properties.pop(name, None)
        return copy

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(message_id={self.message_id!r}, session_id={self.session_id!r},"
            f" body_bytes={len(self._wire.body)})"
        )


def _body_bytes(body: object) -> bytes:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    if isinstance(body, str):
        return body.encode()
    raise TypeError(f"The body of a message must be bytes or str, not {type(body).__name__}.")


def _check_same(partition_key: str | None, session_id: str | None) -> None:
    if partition_key is not None and session_id is not None and partition_key != session_id:
        raise InvalidRequest(
            f"partition_key {partition_key!r} and session_id {session_id!r} differ; leave one out.",
            details={"partition_key": partition_key, "session_id": session_id},
        )


def _check_positive(time_to_live: timedelta) -> None:
    if time_to_live <= timedelta(0):
        raise InvalidRequest(f"time_to_live must be more than zero; {time_to_live} was given.")
