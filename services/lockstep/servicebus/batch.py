"""A batch of messages under Azure's names.

Here belongs the builder. Never here: sending. The law: a message that does not fit is refused, and the batch stays as
it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lockstep.client.batch import MessageBatch
from lockstep.servicebus.exceptions import translating
from lockstep.servicebus.message import ServiceBusMessage, message_of

DEFAULT_BYTES = 1024 * 1024


class ServiceBusMessageBatch:
    """Messages that go out together; get one from `ServiceBusSender.create_message_batch`, which knows the queue."""

    def __init__(self, max_size_in_bytes: int | None = None) -> None:
        """Start empty; 1 MiB at most unless said otherwise."""
        with translating():
            self._batch = MessageBatch(max_size_in_bytes or DEFAULT_BYTES)

    @classmethod
    def _of(cls, batch: MessageBatch) -> ServiceBusMessageBatch:
        made = cls()
        made._batch = batch
        return made

    @property
    def max_size_in_bytes(self) -> int:
        """The most that the messages may take."""
        return self._batch.max_size_in_bytes

    @property
    def size_in_bytes(self) -> int:
        """What the messages take so far."""
        return self._batch.size_in_bytes

    def add_message(self, message: ServiceBusMessage | Mapping[str, Any]) -> None:
        """Add a message at the end.

        Raises:
            MessageSizeExceededError: It does not fit; the batch is unchanged.
            TypeError: It is no message.
        """
        with translating():
            self._batch.add_message(message_of(message))

    def __len__(self) -> int:
        return len(self._batch)

    def __repr__(self) -> str:
        return f"ServiceBusMessageBatch(max_size_in_bytes={self.max_size_in_bytes}, message_count={len(self)})"
