"""The blocking receiver under Azure's names.

Here belongs its shape. Never here: how receiving works. The law: one receiver holds at most one session; entering it,
or its first call, accepts that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Self

from lockstep import QueueReceiver, Session
from lockstep.client.received import ReceivedMessage
from lockstep.servicebus.exceptions import translating
from lockstep.servicebus.message import ServiceBusReceivedMessage, received
from lockstep.servicebus.options import RECEIVE_WAIT_S, ReceiverPlan, check_timeout
from lockstep.servicebus.renewer import AutoLockRenewer
from lockstep.servicebus.session import ServiceBusSession
from lockstep.servicebus.settling import check_alive, check_count


class ServiceBusReceiver:
    """Receives from one queue, or one session of it; made by `ServiceBusClient.get_queue_receiver`.

    Iterating gives one message at a time, until none came for `max_wait_time`.
    """

    def __init__(
        self, inner: QueueReceiver, plan: ReceiverPlan, renewer: AutoLockRenewer | None
    ) -> None:
        self._inner = inner
        self._plan = plan
        self._renewer = renewer
        self._session = (
            None
            if plan.wanted_session is None
            else ServiceBusSession(self._accept, plan.session_id)
        )

    @property
    def session(self) -> ServiceBusSession | None:
        """The session; None = a receiver without session."""
        return self._session

    @property
    def client_identifier(self) -> str:
        """How the receiver shows up in listings."""
        return self._plan.client_identifier

    def receive_messages(
        self, max_message_count: int | None = 1, max_wait_time: float | None = None
    ) -> list[ServiceBusReceivedMessage]:
        """Return up to `max_message_count` messages; an empty list when none came in time.

        Args:
            max_message_count: At most so many; None = none, because there is no prefetching.
            max_wait_time: Seconds to wait for the first message; None = the receiver's, else 60.

        Raises:
            SessionLockLostError: The session's lock is gone; get another receiver.
            OperationTimeoutError: No session became available in time.
            ServiceBusError: Any other.
        """
        check_timeout(max_wait_time, "max_wait_time")
        if max_message_count is None:
            return []
        check_count(max_message_count)
        return self._receive(max_message_count, max_wait_time or self._plan.max_wait_s)

    def peek_messages(
        self,
        max_message_count: int = 1,
        *,
        sequence_number: int = 0,
        timeout: float | None = None,
    ) -> list[ServiceBusReceivedMessage]:
        """Look at messages without locking them, from a number on; 0 = from where the last look ended.

        Raises:
            ServiceBusError: As the server says.
        """
        check_timeout(timeout)
        with translating():
            if self._session is not None:
                self._accept()
            messages = self._inner.peek_messages(
                max_message_count, sequence_number=sequence_number or None
            )
        return received(messages, is_peeked=True)

    def complete_message(self, message: ServiceBusReceivedMessage) -> None:
        """Remove a message for good.

        Raises:
            MessageAlreadySettled: It was settled before.
            MessageLockLostError, SessionLockLostError: The lock is gone; it comes again.
        """
        self._settle(message, "complete", self._inner.complete_message)

    def abandon_message(self, message: ServiceBusReceivedMessage) -> None:
        """Put a message back in its place, delivery count + 1; raises as `complete_message`."""
        self._settle(message, "abandon", self._inner.abandon_message)

    def dead_letter_message(
        self,
        message: ServiceBusReceivedMessage,
        reason: str | None = None,
        error_description: str | None = None,
    ) -> None:
        """Move a message to the dead-letter store; raises as `complete_message`."""
        check_alive(message, self._plan, "dead-letter")
        with translating():
            self._inner.dead_letter_message(
                message._received, reason=reason, error_description=error_description
            )
        message._is_settled = True

    def defer_message(self, message: ServiceBusReceivedMessage) -> None:
        """Set a message aside, to be received by its sequence number only; raises as `complete_message`."""
        self._settle(message, "defer", self._inner.defer_message)

    def receive_deferred_messages(
        self, sequence_numbers: int | Sequence[int], *, timeout: float | None = None
    ) -> list[ServiceBusReceivedMessage]:
        """Return deferred messages by their sequence numbers, all or none. `timeout` is taken without effect.

        Raises:
            MessageNotFoundError: One of them is not deferred, or somebody has it.
            ServiceBusError: Any other.
        """
        check_timeout(timeout)
        with translating():
            self._accept_if_wanted()
            messages = received(self._inner.receive_deferred_messages(sequence_numbers))
        return self._kept(messages)

    def renew_message_lock(
        self, message: ServiceBusReceivedMessage, *, timeout: float | None = None
    ) -> datetime:
        """Move the lock of a message to now + lock duration and return until when it is held.

        Raises:
            TypeError: In a session the session's lock governs.
            MessageAlreadySettled: It was settled before.
            MessageLockLostError: The lock is gone.
        """
        check_timeout(timeout)
        if self._session is not None:
            raise TypeError(
                "In a session the session's lock governs; use receiver.session.renew_lock()."
            )
        check_alive(message, self._plan, "renew")
        with translating():
            return self._inner.renew_message_lock(message._received)

    def close(self) -> None:
        """Give the session back at once and refuse further calls."""
        with translating():
            self._inner.close()

    def __enter__(self) -> Self:
        with translating():
            self._accept_if_wanted()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ServiceBusReceivedMessage:
        wait_s = self._plan.max_wait_s
        while True:
            messages = self._receive(1, wait_s)
            if messages:
                return messages[0]
            if wait_s is not None:
                raise StopIteration

    def __str__(self) -> str:
        return f"Receiver client id: {self.client_identifier}, entity: {self._plan.entity_path}"

    def _receive(self, count: int, wait_s: float | None) -> list[ServiceBusReceivedMessage]:
        with translating():
            self._accept_if_wanted()
            messages = received(self._inner.receive_messages(count, wait_s or RECEIVE_WAIT_S))
        return self._kept(messages)

    def _kept(self, messages: list[ServiceBusReceivedMessage]) -> list[ServiceBusReceivedMessage]:
        """Return messages, with their locks renewed if that is wanted."""
        if self._renewer is not None and self._session is None and self._plan.is_peek_lock:
            for message in messages:
                self._renewer.register(self, message)
        return messages

    def _settle(
        self,
        message: ServiceBusReceivedMessage,
        action: str,
        settle: Callable[[ReceivedMessage], None],
    ) -> None:
        check_alive(message, self._plan, action)
        with translating():
            settle(message._received)
        message._is_settled = True

    def _accept_if_wanted(self) -> None:
        if self._renewer is not None:
            self._renewer.check_running()
        if self._session is not None:
            self._accept()

    def _accept(self) -> Session:
        """Accept the session unless it is held, and have its lock renewed if that is wanted."""
        self._inner.__enter__()
        held = self._inner.session
        assert self._session is not None
        if self._session._held is not held:
            self._session._held = held
            if self._renewer is not None and self._plan.is_peek_lock:
                self._renewer.register(self, self._session)
        return held
