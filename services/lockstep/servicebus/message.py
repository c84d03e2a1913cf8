"""Messages under Azure's names.

Here belong the message to send, the received one, and their conversion to ours. Never here: sending and settling. The
law: a received message gives what azure-servicebus gives, also where that is odd: the body as an iterable of bytes, the
names and texts of application properties as bytes, moments in them as milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Never
from uuid import UUID

from lockstep.client.message import DEAD_LETTER_DESCRIPTION, DEAD_LETTER_REASON, Message
from lockstep.client.received import ReceivedMessage
from lockstep.client.values import PropertyValue, check_id, datetime_to_timestamp, timestamp_to_ms
from lockstep.servicebus.constants import ServiceBusMessageState
from lockstep.servicebus.exceptions import AutoLockRenewFailed, refuse, translating

ApplicationProperties = dict[str | bytes, PropertyValue]
"""Names as text or bytes, values of any kind that Lockstep has."""

_NO_AMQP = "Its properties are attributes of the message itself."


class ServiceBusMessage:
    """A message to send; its attributes may be set until it is sent."""

    def __init__(  # the signature of azure-servicebus
        self,
        body: str | bytes | None,
        *,
        application_properties: Mapping[str | bytes, PropertyValue] | None = None,
        session_id: str | None = None,
        message_id: str | None = None,
        scheduled_enqueue_time_utc: datetime | None = None,
        time_to_live: timedelta | int | None = None,
        content_type: str | None = None,
        correlation_id: str | None = None,
        subject: str | None = None,
        partition_key: str | None = None,
        to: str | None = None,
        reply_to: str | None = None,
        reply_to_session_id: str | None = None,
        encoding: str = "UTF-8",
    ) -> None:
        """Make a message; the arguments are those of azure-servicebus.

        Raises:
            TypeError: The body is neither text nor bytes nor None.
            ValueError: An id is longer than 128 characters.
        """
        if not isinstance(body, str | bytes | None):
            raise TypeError(
                f"ServiceBusMessage body must be a string, bytes, or None.  Got instead: {type(body)}"
            )
        with translating():
            check_id(session_id, "session_id")
            check_id(message_id, "message_id")
            check_id(partition_key, "partition_key")
            check_id(reply_to_session_id, "reply_to_session_id")
        self._encoding = encoding
        self._body = body.encode(encoding) if isinstance(body, str) else body
        self.application_properties: ApplicationProperties | None = (
            None if application_properties is None else dict(application_properties)
        )
        self.session_id = session_id
        self.message_id = message_id
        self.scheduled_enqueue_time_utc = scheduled_enqueue_time_utc
        self.time_to_live = time_to_live
        self.content_type = content_type
        self.correlation_id = correlation_id
        self.subject = subject
        self.partition_key = partition_key
        self.to = to
        self.reply_to = reply_to
        self.reply_to_session_id = reply_to_session_id

    @property
    def body(self) -> Any:
        """The body: an iterator over one piece of bytes, new at each access; None = no body."""
        return None if self._body is None else iter((self._body,))

    @property
    def body_type(self) -> Never:
        """Not there: a body is always bytes."""
        refuse("body_type", "A body is always bytes.")

    @property
    def raw_amqp_message(self) -> Never:
        """Not there: messages do not travel over AMQP."""
        refuse("raw_amqp_message", _NO_AMQP)

    @property
    def message(self) -> Never:
        """Not there: messages do not travel over AMQP."""
        refuse("message.message", _NO_AMQP)

    def __str__(self) -> str:
        return "" if self._body is None else self._body.decode(self._encoding)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(body={self}, application_properties={self.application_properties},"
            f" session_id={self.session_id}, message_id={self.message_id}, subject={self.subject})"
        )[:1024]

    def _to_message(self) -> Message:
        """Return it as ours.

        Raises:
            ServiceBusError: A property is refused.
            TypeError: A property is of a kind that Lockstep does not have.
        """
        ttl = self.time_to_live
        with translating():
            return Message(
                self._body,
                session_id=self.session_id,
                message_id=self.message_id,
                subject=self.subject,
                correlation_id=self.correlation_id,
                content_type=self.content_type,
                reply_to=self.reply_to,
                reply_to_session_id=self.reply_to_session_id,
                to=self.to,
                partition_key=self.partition_key,
                time_to_live=timedelta(seconds=ttl) if isinstance(ttl, int) else ttl,
                scheduled_enqueue_time_utc=self.scheduled_enqueue_time_utc,
                application_properties=self._properties_to_send(),
            )

    def _properties_to_send(self) -> dict[str, PropertyValue]:
        given = self.application_properties or {}
        return {_text(name): value for name, value in given.items()}


class ServiceBusReceivedMessage(ServiceBusMessage):
    """A message that was received, or looked at; it may be sent again.

    Attributes:
        auto_renew_error: Why an AutoLockRenewer lost its lock; None = it did not.
    """

    def __init__(
        self,
        received: ReceivedMessage,
        *,
        is_peeked: bool = False,
    ) -> None:
        """Show `received`; made by receivers."""
        super().__init__(
            received.body,
            application_properties=_as_received(received.application_properties),
            session_id=received.session_id,
            message_id=received.message_id,
            scheduled_enqueue_time_utc=received.scheduled_enqueue_time_utc,
            time_to_live=received.time_to_live,
            content_type=received.content_type,
            correlation_id=received.correlation_id,
            subject=received.subject,
            partition_key=received.partition_key,
            to=received.to,
            reply_to=received.reply_to,
            reply_to_session_id=received.reply_to_session_id,
        )
        self._received = received
        self._is_peeked = is_peeked
        self._is_settled = False
        self.auto_renew_error: AutoLockRenewFailed | None = None

    @property
    def sequence_number(self) -> int:
        """The number of the message in its queue."""
        return self._received.sequence_number

    @property
    def enqueued_sequence_number(self) -> None:
        """None: nothing is forwarded."""
        return

    @property
    def delivery_count(self) -> int:
        """How often the message was delivered before, without success; 0 at the first time."""
        return self._received.delivery_count

    @property
    def enqueued_time_utc(self) -> datetime:
        """When the broker accepted the message."""
        return self._received.enqueued_time_utc

    @property
    def expires_at_utc(self) -> datetime | None:
        """When the message expires; None = never."""
        return self._received.expires_at_utc

    @property
    def lock_token(self) -> UUID | None:
        """The token of its lock; None = it has none, or was settled."""
        token = self._received.lock_token
        return None if token is None or self._is_settled else UUID(bytes=token)

    @property
    def locked_until_utc(self) -> datetime | None:
        """Until when it is locked; None in a session, whose lock governs, and when it was settled."""
        return None if self._is_settled else self._received.locked_until_utc

    @property
    def dead_letter_reason(self) -> str | None:
        """Why it is in the dead-letter store."""
        return self._received.dead_letter_reason

    @property
    def dead_letter_error_description(self) -> str | None:
        """The same in more words."""
        return self._received.dead_letter_error_description

    @property
    def dead_letter_source(self) -> None:
        """None: dead letters are not forwarded."""
        return

    @property
    def state(self) -> ServiceBusMessageState:
        """DEFERRED if it was set aside, SCHEDULED if it was looked at before its time, else ACTIVE."""
        return ServiceBusMessageState[self._received.state.name]

    def _properties_to_send(self) -> dict[str, PropertyValue]:
        """Return properties in their own kinds, as far as the program left them, without those of the broker."""
        typed = self._received.application_properties
        shown = _as_received(typed) or {}
        broker = (DEAD_LETTER_REASON, DEAD_LETTER_DESCRIPTION)
        return {
            _text(name): typed[_text(name)] if name in shown and shown[name] == value else value
            for name, value in (self.application_properties or {}).items()
            if _text(name) not in broker
        }


Sendable = ServiceBusMessage | Mapping[str, Any] | Iterable[ServiceBusMessage | Mapping[str, Any]]
"""What may be sent: one message, or several; a mapping holds the arguments of ServiceBusMessage."""


def messages_of(what: Sendable) -> list[Message]:
    """Return what is to be sent as our messages.

    Raises:
        TypeError: There is something other than messages.
        ServiceBusError: A message is refused.
    """
    if isinstance(what, ServiceBusMessage | Mapping):
        return [message_of(what)]
    if not isinstance(what, Iterable):
        raise _no_message(what)
    return [message_of(each) for each in what]


def message_of(what: ServiceBusMessage | Mapping[str, Any]) -> Message:
    """Return one message as ours.

    Raises:
        TypeError: It is no message.
        ServiceBusError: The message is refused.
    """
    if isinstance(what, ServiceBusMessage):
        return what._to_message()
    if isinstance(what, Mapping):
        return ServiceBusMessage(**what)._to_message()
    raise _no_message(what)


def received(
    messages: Iterable[ReceivedMessage],
    *,
    is_peeked: bool = False,
) -> list[ServiceBusReceivedMessage]:
    """Return our messages under Azure's names."""
    return [ServiceBusReceivedMessage(message, is_peeked=is_peeked) for message in messages]


def _no_message(what: object) -> TypeError:
    return TypeError(
        "Only ServiceBusMessage instances or Mappings representing messages are supported."
        f" Received instead: {type(what).__name__}"
    )


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _as_received(properties: Mapping[str, PropertyValue]) -> ApplicationProperties | None:
    return dict(_shown(properties)) or None


def _shown(properties: Mapping[str, PropertyValue]) -> Iterator[tuple[bytes, PropertyValue]]:
    for name, value in properties.items():
        match value:
            case str():
                yield name.encode(), value.encode()
            case datetime():
                yield name.encode(), timestamp_to_ms(datetime_to_timestamp(value))
            case _:
                yield name.encode(), value
