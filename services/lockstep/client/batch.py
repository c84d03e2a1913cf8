"""Gathering messages for one send, up to a size.

Here belongs the batch builder. Never here: sending. The law (SND-6): a message that does not fit is
refused and the batch stays as it was, ready to be sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.client.message import Message
from lockstep.core.errors import InvalidRequest, MessageSizeExceeded
from lockstep.core.limits import Limits, check_at_most

_DEFAULTS = Limits()


@dataclass(frozen=True, slots=True)
class SendLimits:
    """What a queue takes at once.

    Attributes:
        bytes_max: All messages of one send together.
        messages_max: How many they may be.
        message_bytes_max: One message.
    """

    bytes_max: int = _DEFAULTS.send_bytes_max
    messages_max: int = _DEFAULTS.send_messages_max
    message_bytes_max: int = _DEFAULTS.message_bytes_max


_OF_A_BROKER = SendLimits()


class MessageBatch:
    """Messages that go out in one request. Not for use by several threads at once."""

    __slots__ = ("_limits", "_max_size_bytes", "_messages", "_size_bytes")

    def __init__(
        self, max_size_in_bytes: int | None = None, *, limits: SendLimits = _OF_A_BROKER
    ) -> None:
        """Start empty. A sender's `create_message_batch` knows the limits of its queue.

        Args:
            max_size_in_bytes: The most that the messages may take on the wire, their envelopes included;
                None = as much as one send may have.
            limits: What the queue takes; by default what a broker does that was told nothing else, 16 MiB.

        Raises:
            InvalidRequest: The size is not positive.
            LimitExceeded: It is more than one send may have.
        """
        self._limits = limits
        if max_size_in_bytes is None:
            max_size_in_bytes = limits.bytes_max
        check_at_most(
            max_size_in_bytes,
            limits.bytes_max,
            "max_size_in_bytes",
            "A send of more is refused; make several batches.",
        )
        if max_size_in_bytes < 1:
            raise InvalidRequest(
                f"max_size_in_bytes must be positive; {max_size_in_bytes} was given."
            )
        self._max_size_bytes = max_size_in_bytes
        self._size_bytes = 0
        self._messages: list[Message] = []

    @property
    def max_size_in_bytes(self) -> int:
        """The most that the messages may take."""
        return self._max_size_bytes

    @property
    def size_in_bytes(self) -> int:
        """What the messages take so far."""
        return self._size_bytes

    def __len__(self) -> int:
        return len(self._messages)

    def add_message(self, message: Message) -> None:
        """Add a message at the end.

        Raises:
            MessageSizeExceeded: It does not fit; the batch is unchanged. Send the batch and begin
                another; a message that does not fit an empty batch must be made smaller.
            TypeError: It is not a Message.
        """
        if not isinstance(message, Message):
            raise TypeError(
                f"A batch takes Message, not {type(message).__name__}. To send a received message on,"
                " use Message.from_received(message)."
            )
        count_max = self._limits.messages_max
        if len(self._messages) >= count_max:
            raise MessageSizeExceeded(
                f"The batch holds {count_max} messages, as many as one send may have. Send it and begin another.",
                details={
                    "limit": "send_messages_max",
                    "configured": str(count_max),
                    "observed": str(count_max + 1),
                },
            )
        message_bytes, most = message._wire.ByteSize(), self._limits.message_bytes_max
        if message_bytes > most:
            raise MessageSizeExceeded(
                f"The queue allows {most} bytes for one message; this one has {message_bytes}. The batch is unchanged."
                " Send less, or store the payload elsewhere and send a pointer to it.",
                details={
                    "limit": "max_message_size_in_kilobytes",
                    "configured": str(most),
                    "observed": str(message_bytes),
                },
            )
        size_bytes = self._size_bytes + _size_in_request(message_bytes)
        if size_bytes > self._max_size_bytes:
            advice = (
                "Send it and begin another."
                if self._messages
                else "The batch is empty, so the message itself is too large: make it smaller."
            )
            raise MessageSizeExceeded(
                f"With this message the batch would take {size_bytes} bytes; it may take"
                f" {self._max_size_bytes}. {advice}",
                details={
                    "limit": "max_size_in_bytes",
                    "configured": str(self._max_size_bytes),
                    "observed": str(size_bytes),
                },
            )
        self._messages.append(message)
        self._size_bytes = size_bytes


def _size_in_request(size: int) -> int:
    """Return the bytes of a message with its field tag and length, as the request will hold it."""
    return 1 + (max(size.bit_length(), 1) + 6) // 7 + size
