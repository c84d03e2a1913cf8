"""The blocking sender under Azure's names.

Here belongs its shape. Never here: how sending works. The law: a send that returned is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from lockstep import QueueSender
from lockstep.servicebus.batch import DEFAULT_BYTES, ServiceBusMessageBatch
from lockstep.servicebus.exceptions import translating
from lockstep.servicebus.message import Sendable, messages_of
from lockstep.servicebus.options import check_timeout


class ServiceBusSender:
    """Sends to one queue; made by `ServiceBusClient.get_queue_sender`."""

    def __init__(self, inner: QueueSender, queue_name: str, client_identifier: str) -> None:
        self._inner = inner
        self._queue_name = queue_name
        self._client_identifier = client_identifier

    @property
    def client_identifier(self) -> str:
        """How the program calls this sender; the broker is not told."""
        return self._client_identifier

    def send_messages(
        self, message: Sendable | ServiceBusMessageBatch, *, timeout: float | None = None
    ) -> None:
        """Store a message, several, or a batch, in one request; nothing for an empty list.

        Raises:
            OperationTimeoutError: No answer in time; whether it was stored is not known.
            MessageSizeExceededError: Too large, or too many, for one send; nothing was stored.
            ServiceBusError: Any other.
        """
        check_timeout(timeout)
        batch = (
            message._batch if isinstance(message, ServiceBusMessageBatch) else messages_of(message)
        )
        with translating():
            self._inner.send_messages(batch, timeout=timeout)

    def schedule_messages(
        self, messages: Sendable, schedule_time_utc: datetime, *, timeout: float | None = None
    ) -> list[int]:
        """Store messages that become active at a time; return the numbers that cancel them.

        Raises:
            ServiceBusError: As `send_messages`.
        """
        check_timeout(timeout)
        ours = messages_of(messages)
        with translating():
            return self._inner.schedule_messages(ours, schedule_time_utc, timeout=timeout)

    def cancel_scheduled_messages(
        self, sequence_numbers: int | Sequence[int], *, timeout: float | None = None
    ) -> None:
        """Take scheduled messages back, all or none.

        Raises:
            MessageNotFoundError: One of them is active, or was cancelled, or never was.
            ServiceBusError: Any other.
        """
        check_timeout(timeout)
        with translating():
            self._inner.cancel_scheduled_messages(sequence_numbers, timeout=timeout)

    def create_message_batch(self, max_size_in_bytes: int | None = None) -> ServiceBusMessageBatch:
        """Return an empty batch, of 1 MiB at most unless said otherwise; the first one asks the server what it takes.

        Raises:
            ValueError: The size is more than one send may have.
            ServiceBusError: Any other.
        """
        with translating():
            batch = self._inner.create_message_batch(max_size_in_bytes or None)
            if not max_size_in_bytes and batch.max_size_in_bytes > DEFAULT_BYTES:
                batch = self._inner.create_message_batch(DEFAULT_BYTES)
        return ServiceBusMessageBatch._of(batch)

    def close(self) -> None:
        """Refuse further sends."""
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"Sender client id: {self._client_identifier}, entity: {self._queue_name}"
