"""A message as the broker delivers it, and why one could not be settled.

Here belong the types that a receiver hands out. Never here: how a message is settled (`receiving`).
The law: one is built in well under a microsecond, keeps what came over the wire, and computes the
rest when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat

from lockstep.client.message import (
    DEAD_LETTER_DESCRIPTION,
    DEAD_LETTER_REASON,
    MessageContent,
)
from lockstep.client.values import DATETIME_MS_MAX, MessageState, datetime_of_ms
from lockstep.core.errors import InternalError, LockstepError
from lockstep.core.wording import counted
from lockstep.v1 import message_pb2, session_pb2
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.wire.status import error_for_reason


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the messages of one response have in common.

    Attributes:
        entity: The queue, or its dead-letter store, that they came from.
        session: The held session that they were delivered under; None = a plain queue.
        lock_token_prefix: What their lock tokens begin with; empty = nothing was locked.
        locked_until_ms: Until when they are locked, by the broker's clock; None = in a session, or not locked.
        state: What they waited for when the response was made.
    """

    entity: str
    session: session_pb2.SessionLock | None
    lock_token_prefix: bytes
    locked_until_ms: int | None
    state: MessageState = MessageState.ACTIVE


class ReceivedMessage(MessageContent):
    """A message that was received; read-only."""

    __slots__ = (
        "_delivery",
        "_delivery_count",
        "_enqueued_ms",
        "_expires_ms",
        "_is_settled",
        "_renewed_until_ms",
        "_sequence_number",
        "_trail",
    )

    def __init__(
        self,
        wire: message_pb2.Message,
        sequence_number: int,
        delivery_count: int,
        enqueued_ms: int,
        delivery: Delivery,
        expires_ms: int = 0,
    ) -> None:
        self._wire = wire
        self._sequence_number = sequence_number
        self._delivery_count = delivery_count
        self._enqueued_ms = enqueued_ms
        self._delivery = delivery
        self._expires_ms = expires_ms
        self._renewed_until_ms: int | None = None
        self._is_settled = False
        self._trail: messaging.ResubmissionTrail | None = None

    @property
    def resubmit_count(self) -> int:
        """How often the message was resubmitted, or moved from a dead-letter store (RSB-4)."""
        return self._trail.resubmit_count if self._trail is not None else 0

    @property
    def original_sequence_number(self) -> int | None:
        """The number it had before it was resubmitted or moved the first time; None = never."""
        return self._trail.original_sequence_number if self._trail is not None else None

    @property
    def dead_letter_source(self) -> str | None:
        """The queue it was in before it was resubmitted or moved the last time; None = never."""
        return self._trail.source if self._trail is not None else None

    @property
    def last_dead_letter_reason(self) -> str | None:
        """Why it was a dead letter before it was resubmitted or moved the last time; None = never."""
        return self._trail.dead_letter_reason if self._trail is not None else None

    @property
    def sequence_number(self) -> int:
        """Unique in the queue and rising within a session (ADD-1)."""
        return self._sequence_number

    @property
    def delivery_count(self) -> int:
        """How often the message was delivered before, without success; 0 at the first time (DCN-1)."""
        return self._delivery_count

    @property
    def enqueued_time_utc(self) -> datetime:
        """When the broker accepted the message."""
        return datetime_of_ms(self._enqueued_ms)

    @property
    def expires_at_utc(self) -> datetime | None:
        """When the message expires (TTL-2); None = never, after the year 9999, or it is a dead letter."""
        is_date = 0 < self._expires_ms <= DATETIME_MS_MAX
        return datetime_of_ms(self._expires_ms) if is_date else None

    @property
    def state(self) -> MessageState:
        """What the message waits, or waited, for: DEFERRED also if it was received as such."""
        return self._delivery.state

    @property
    def lock_token(self) -> bytes | None:
        """The 16 bytes that settle this message over any connection (LCK-4); None = it is not locked."""
        prefix = self._delivery.lock_token_prefix
        return prefix + self._sequence_number.to_bytes(8, "big") if prefix else None

    @property
    def locked_until_utc(self) -> datetime | None:
        """Until when the message is locked, by the broker's clock.

        None in a session, where the session's lock governs, and after receive-and-delete.
        """
        until_ms = self._renewed_until_ms or self._delivery.locked_until_ms
        return None if until_ms is None else datetime_of_ms(until_ms)

    @property
    def dead_letter_reason(self) -> str | None:
        """Why the message is in the dead-letter store; None = it is not, or nobody said."""
        return self._text_property(DEAD_LETTER_REASON)

    @property
    def dead_letter_error_description(self) -> str | None:
        """The same in more words."""
        return self._text_property(DEAD_LETTER_DESCRIPTION)

    def _text_property(self, name: str) -> str | None:
        # Reading a map entry of protobuf by index would make it.
        properties = self._wire.application_properties
        if name not in properties or not properties[name].HasField("string_value"):
            return None
        return properties[name].string_value

    def __str__(self) -> str:
        return self._wire.body.decode(errors="replace")

    def __repr__(self) -> str:
        return (
            f"ReceivedMessage(sequence_number={self._sequence_number}, message_id={self.message_id!r},"
            f" session_id={self.session_id!r}, delivery_count={self._delivery_count},"
            f" body_bytes={len(self._wire.body)})"
        )


def delivered_messages(
    response: messaging.ReceiveMessagesResponse | messaging.ReceiveDeferredMessagesResponse,
    delivery: Delivery,
) -> list[ReceivedMessage]:
    """Turn the columns of a response into messages.

    Raises:
        InternalError: The columns are of different lengths.
    """
    wires = response.messages
    sequence_numbers = response.sequence_numbers
    enqueued = response.enqueued_times_unix_ms
    counts = response.delivery_counts
    if not len(wires) == len(sequence_numbers) == len(enqueued) or len(counts) not in (
        0,
        len(wires),
    ):
        raise InternalError(
            f"A response from '{delivery.entity}' has {counted(len(wires), 'message')} but columns of other lengths."
        )
    messages = list(
        map(
            ReceivedMessage,
            wires,
            sequence_numbers,
            counts or repeat(0),
            enqueued,
            repeat(delivery),
            response.expires_times_unix_ms or repeat(0),
        )
    )
    note_trails(messages, response.trails)
    return messages


def note_trails(
    messages: Sequence[ReceivedMessage], trails: Iterable[messaging.ResubmissionTrail]
) -> None:
    """Tell messages where they were before they were resubmitted."""
    for trail in trails:
        messages[trail.index]._trail = trail


@dataclass(frozen=True, slots=True)
class SettlementFailure:
    """Why one message of several was not settled, or its lock not renewed.

    Attributes:
        message: The message; its lock is as it was before.
        reason: The stable reason, for example MESSAGE_LOCK_LOST.
        description: What happened and what to do, for a person.
    """

    message: ReceivedMessage
    reason: str
    description: str

    @property
    def error(self) -> LockstepError:
        """The error that the single form of the call would have raised."""
        details = {"sequence_number": str(self.message.sequence_number)}
        return error_for_reason(self.reason, self.description, details)
