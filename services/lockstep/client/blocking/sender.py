"""The blocking sender.

Here belongs its public shape. Never here: how sending works (`sending`). The law: nothing is decided
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

from lockstep.client.batch import MessageBatch
from lockstep.client.sending import Sendable, Sending, SequenceNumbers
from lockstep.client.transport import run_to_completion
from lockstep.client.values import seconds_to_ms


class QueueSender:
    """Sends messages to one queue. Made by `LockstepClient.get_queue_sender`; threads may share it."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    def send_messages(
        self, messages: Sendable, *, require_atomic: bool = False, timeout: float | None = None
    ) -> SequenceNumbers:
        """Store messages and return their sequence numbers, in their order.

        When it returns, all are synced to disk (SND-1). A retry stores nothing twice. What was a duplicate is named in
        `duplicate_indexes` of the result.

        Args:
            messages: One message, a list of them, oldest first, or a batch; they go out in one request.
            require_atomic: Refuse, before storing anything, what would be stored in several partitions.
            timeout: Seconds that all tries together may take; None = as long as the client's retries last.

        Raises:
            TypeError: There is something other than messages.
            ClientClosed: The sender or its client was closed.
            MessageSizeExceeded, LimitExceeded: Too large, or too many, for one send; nothing was stored.
            EntityNotFound: There is no such queue.
            InvalidOperation: A message for a session queue has no session id; nothing was stored.
            QuotaExceeded: The queue is full.
            LockstepError: Any other; OperationTimeout and Unavailable leave open whether it was stored.
        """
        checked = self._sending.messages_of(messages)
        budget_ms = None if timeout is None else seconds_to_ms(timeout, "timeout")
        return run_to_completion(
            self._sending.send(checked, require_atomic=require_atomic, budget_ms=budget_ms)
        )

    def schedule_messages(
        self, messages: Sendable, schedule_time_utc: datetime, *, timeout: float | None = None
    ) -> SequenceNumbers:
        """Store messages that become active at a time, and return the numbers that cancel them (SCH-1).

        When one becomes active it gets another number (SCH-3).

        Args:
            messages: One message, a list of them, oldest first, or a batch.
            schedule_time_utc: When they become active; without a zone it counts as UTC. A past time = at once.
            timeout: Seconds that all tries together may take; None = as long as the client's retries last.

        Raises:
            LockstepError: As `send_messages`.
        """
        checked = self._sending.scheduled(self._sending.messages_of(messages), schedule_time_utc)
        budget_ms = None if timeout is None else seconds_to_ms(timeout, "timeout")
        return run_to_completion(
            self._sending.send(checked, require_atomic=False, budget_ms=budget_ms)
        )

    def cancel_scheduled_messages(
        self, sequence_numbers: int | Sequence[int], *, timeout: float | None = None
    ) -> None:
        """Take scheduled messages back, all or none (SCH-5).

        Args:
            sequence_numbers: What `schedule_messages` returned, one or several.
            timeout: Seconds that all tries together may take; None = as long as the client's retries last.

        Raises:
            MessageNotFound: One of them is active, or was cancelled, or never was; none was cancelled.
            LockstepError: Any other.
        """
        budget_ms = None if timeout is None else seconds_to_ms(timeout, "timeout")
        run_to_completion(self._sending.cancel_scheduled(sequence_numbers, budget_ms=budget_ms))

    def create_message_batch(self, max_size_in_bytes: int | None = None) -> MessageBatch:
        """Return an empty batch to be filled and sent, which knows what its queue takes (SND-6).

        The first one asks the server for that. A setting that is changed later is found by the send.

        Args:
            max_size_in_bytes: The most that it may take; None = as much as one send may have, 16 MiB by default.

        Raises:
            InvalidRequest: The size is not positive.
            LimitExceeded: It is more than one send may have.
            EntityNotFound: There is no such queue.
            LockstepError: Any other of a call.
        """
        return run_to_completion(self._sending.new_batch(max_size_in_bytes))

    def close(self) -> None:
        """Refuse further sends; those under way go on. A second close does nothing."""
        self._sending.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
