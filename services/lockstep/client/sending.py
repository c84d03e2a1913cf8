"""Sending, whether it blocks or not.

Here belongs what both senders do. Never here: the public classes (`aio`, `blocking`). The law: a send
that returned is stored, all of it; anything else raises, and says what is stored (SND-2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from lockstep.client.batch import MessageBatch, SendLimits
from lockstep.client.connection import Connection
from lockstep.client.message import Message
from lockstep.client.received import ReceivedMessage
from lockstep.client.transport import CANCEL_SCHEDULED_MESSAGES, GET_QUEUE, SEND_MESSAGES
from lockstep.client.values import datetime_to_timestamp
from lockstep.core.errors import ClientClosed, Exhausted, LockstepError, MessageSizeExceeded
from lockstep.core.limits import KIB
from lockstep.core.wording import counted, sentence
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.wire.status import error_for_reason

Sendable = Message | MessageBatch | Sequence[Message]
"""What one send takes."""


class SequenceNumbers(list[int]):
    """The sequence numbers of the messages of one send, in their order.

    Attributes:
        duplicate_indexes: The places, from 0, of messages that were discarded because their ids were known (DUP-2);
            the numbers there are those of the first copies.
    """

    __slots__ = ("duplicate_indexes",)

    def __init__(self, numbers: Iterable[int] = (), duplicate_indexes: Iterable[int] = ()) -> None:
        super().__init__(numbers)
        self.duplicate_indexes = tuple(duplicate_indexes)


class Sending:
    """Sends to one queue."""

    def __init__(self, connection: Connection, queue: str) -> None:
        """Send to `queue` over `connection`."""
        self._connection = connection
        self.queue = queue
        self._is_closed = False
        self._limits: SendLimits | None = None

    async def new_batch(self, max_size_in_bytes: int | None) -> MessageBatch:
        """Return an empty batch that knows what the queue takes; asks the server once.

        Raises:
            InvalidRequest: The size is not positive.
            LimitExceeded: It is more than one send may have.
            EntityNotFound: There is no such queue.
            ClientClosed: The sender or its client was closed.
        """
        self._check_open()
        if self._limits is None:
            request = admin.GetQueueRequest(namespace=self._connection.namespace, name=self.queue)
            told = await self._connection.calls.call(GET_QUEUE, request)
            self._limits = SendLimits(
                told.send_limits.bytes_max,
                told.send_limits.messages_max,
                told.queue.settings.max_message_size_in_kilobytes * KIB,
            )
        return MessageBatch(max_size_in_bytes, limits=self._limits)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosed(f"This sender of queue '{self.queue}' was closed; get another one.")
        self._connection.check_open()

    def messages_of(self, what: Sendable) -> list[Message]:
        """Return what is to be sent as a list, after checking all that can be checked here.

        Raises:
            ClientClosed: The sender or its client was closed.
            TypeError: There is something other than messages.
        """
        self._check_open()
        if isinstance(what, Message):
            return [what]
        if isinstance(what, MessageBatch):
            return what._messages.copy()
        if isinstance(what, ReceivedMessage) or not isinstance(what, Iterable):
            raise _no_message(what)
        messages = list(what)
        for message in messages:
            if not isinstance(message, Message):
                raise _no_message(message)
        return messages

    async def send(
        self, messages: Sequence[Message], *, require_atomic: bool, budget_ms: int | None
    ) -> SequenceNumbers:
        """Store messages in one request and return their sequence numbers, in their order.

        Sending nothing returns an empty list.

        Args:
            messages: Oldest first.
            require_atomic: Refuse, before storing anything, what would be stored in several partitions.
            budget_ms: How long all tries together may take; None = as long as the retries last.

        Raises:
            MessageSizeExceeded, LimitExceeded: Too large, or too many, for one send; nothing was stored.
            LockstepError: As the server says. Where only some messages of several partitions were stored,
                the details name the places of those that were not.
        """
        if not messages:
            return SequenceNumbers()
        request = messaging.SendMessagesRequest(
            namespace=self._connection.namespace,
            entity=self.queue,
            request_id=self._connection.calls.new_request_id(),
            messages=[message._wire for message in messages],
            require_atomic=require_atomic,
        )
        try:
            response = await self._connection.calls.call(
                SEND_MESSAGES, request, budget_ms=budget_ms, judge=self._judge
            )
        except Exhausted as error:
            if error.details.get("grpc_code") is None:
                raise
            # gRPC itself refused the request, for its size, before a server of ours saw it.
            raise MessageSizeExceeded(
                f"The request to send {counted(len(messages), 'message')} to '{self.queue}' has"
                f" {request.ByteSize()} bytes, more than the server takes at once: {sentence(error.message)} Send fewer"
                " messages at a time, or use create_message_batch.",
                details={"observed": str(request.ByteSize())},
            ) from error
        return SequenceNumbers(response.sequence_numbers, response.duplicate_indexes)

    def scheduled(self, messages: Sequence[Message], when: datetime) -> list[Message]:
        """Return copies of messages that become active at a time.

        Raises:
            TypeError: `when` is no datetime.
        """
        due = datetime_to_timestamp(when)
        copies = []
        for message in messages:
            copy = Message.from_received(message)
            copy._wire.scheduled_enqueue_time.CopyFrom(due)
            copies.append(copy)
        return copies

    async def cancel_scheduled(
        self, sequence_numbers: int | Sequence[int], *, budget_ms: int | None
    ) -> None:
        """Take scheduled messages back, all or none (SCH-5).

        Raises:
            ClientClosed: The sender or its client was closed.
            MessageNotFound: One of them is not scheduled (any more); none was cancelled.
            LockstepError: As the server says.
        """
        self.messages_of(())
        given = [sequence_numbers] if isinstance(sequence_numbers, int) else list(sequence_numbers)
        if not given:
            return
        request = messaging.CancelScheduledMessagesRequest(
            namespace=self._connection.namespace,
            entity=self.queue,
            request_id=self._connection.calls.new_request_id(),
            sequence_numbers=given,
        )
        await self._connection.calls.call(CANCEL_SCHEDULED_MESSAGES, request, budget_ms=budget_ms)

    def close(self) -> None:
        """Refuse further sends. A second close does nothing."""
        self._is_closed = True

    def _judge(self, response: messaging.SendMessagesResponse) -> LockstepError | None:
        """Return the error of a batch that was stored in part; sending it again stores the rest (ADD-2)."""
        if not response.failures:
            return None
        first = response.failures[0]
        failed = sorted(failure.index for failure in response.failures)
        total = len(response.sequence_numbers)
        return error_for_reason(
            first.reason,
            f"{len(failed)} of {counted(total, 'message')} {'was' if len(failed) == 1 else 'were'} not stored in"
            f" '{self.queue}': {first.description} The others were stored.",
            {
                "not_stored": str(len(failed)),
                "stored": str(total - len(failed)),
                "not_stored_indexes": _ranges(failed),
            },
        )


def _no_message(what: object) -> TypeError:
    return TypeError(
        f"send_messages takes Message, not {type(what).__name__}. To send a received message on,"
        " use Message.from_received(message)."
    )


def _ranges(numbers: Iterable[int]) -> str:
    """Return rising numbers in short: `0-3,7`."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
