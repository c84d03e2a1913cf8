"""Keeping locks alive while a program works, whether the client blocks or not.

Here belongs when a lock is renewed and when that ends. Never here: tasks and threads (`aio`,
`blocking`). The law (CLI-7): a lock is renewed when half of its time is over, never after settlement
or close; and when it is lost, that is reported once.

Half of the time is measured with this machine's clock against the broker's lock-until, so the two
clocks must agree to within a quarter of the lock duration.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from lockstep.client.calls import RETRYABLE
from lockstep.client.holding import HeldSession
from lockstep.client.received import ReceivedMessage
from lockstep.client.receiving import Receiving
from lockstep.client.transport import Transport
from lockstep.client.values import ReceiveMode, datetime_of_ms
from lockstep.core.errors import (
    InvalidRequest,
    LockstepError,
    MessageLockLost,
    SessionLockLost,
)

log = logging.getLogger("lockstep.client")

_PAUSE_MS_MIN: Final = 500
_BUDGET_MS_MIN: Final = 1_000


@dataclass(frozen=True, slots=True)
class Loss:
    """One lock that is not kept any more.

    Attributes:
        renewable: What was registered: a session, or one of the messages.
        error: Why.
    """

    renewable: object
    error: LockstepError


class OfReceiving(Protocol):
    """A receiver of either client."""

    _receiving: Receiving


class Kept(Protocol):
    """Locks that are renewed together."""

    def is_live(self) -> bool:
        """Whether anything is left to keep: not settled, not closed."""
        ...

    def locked_until_ms(self) -> int:
        """Until when the locks are held, in ms since the epoch; of several, the first to end."""
        ...

    async def renew(self, budget_ms: int) -> list[Loss]:
        """Renew and return what was lost already, which is not kept any more.

        Raises:
            LockstepError: The call failed; nothing is known of any lock.
        """
        ...

    def lost(self, error: LockstepError | None) -> list[Loss]:
        """Return everything as lost; without an error, because renewal had stopped."""
        ...


class KeptSession:
    """The lock of a held session."""

    def __init__(self, receiving: Receiving, held: HeldSession, public: object) -> None:
        """Keep `held` while `receiving` is open; losses name `public`."""
        self._receiving = receiving
        self._held = held
        self._public = public

    def is_live(self) -> bool:
        """See `Kept`."""
        return not self._held.is_released and not self._receiving.is_closed

    def locked_until_ms(self) -> int:
        """See `Kept`; a receive moves it too (SES-23)."""
        return self._held.locked_until_ms

    async def renew(self, budget_ms: int) -> list[Loss]:
        """See `Kept`."""
        await self._held.renew(budget_ms=budget_ms)
        return []

    def lost(self, error: LockstepError | None) -> list[Loss]:
        """See `Kept`."""
        if error is None:
            until = datetime_of_ms(self._held.locked_until_ms).isoformat()
            error = SessionLockLost(
                f"Renewal of session '{self._held.session_id}' had stopped as configured; its lock ran out at {until}."
            )
        return [Loss(self._public, error)]


class KeptMessages:
    """The locks of single messages of a plain queue."""

    def __init__(self, receiving: Receiving, messages: Sequence[ReceivedMessage]) -> None:
        """Keep `messages` while `receiving` is open."""
        self._receiving = receiving
        self._messages = list(messages)

    def is_live(self) -> bool:
        """See `Kept`."""
        self._messages = [message for message in self._messages if not message._is_settled]
        return bool(self._messages) and not self._receiving.is_closed

    def locked_until_ms(self) -> int:
        """See `Kept`."""
        return min(
            message._renewed_until_ms or message._delivery.locked_until_ms or 0
            for message in self._messages
        )

    async def renew(self, budget_ms: int) -> list[Loss]:
        """See `Kept`."""
        failures = await self._receiving.renew_messages(self._messages, budget_ms=budget_ms)
        failed = {failure.message for failure in failures}
        self._messages = [message for message in self._messages if message not in failed]
        return [
            Loss(failure.message, failure.error)
            for failure in failures
            if not failure.message._is_settled
        ]

    def lost(self, error: LockstepError | None) -> list[Loss]:
        """See `Kept`."""
        return [
            Loss(message, error or _stopped(message))
            for message in self._messages
            if not message._is_settled
        ]


class _NothingKept:
    """What a renewal has that was stopped."""

    def is_live(self) -> bool:
        """See `Kept`."""
        return False

    def locked_until_ms(self) -> int:
        """See `Kept`."""
        return 0

    async def renew(self, budget_ms: int) -> list[Loss]:  # noqa: ARG002  # the port's
        """See `Kept`."""
        return []

    def lost(self, error: LockstepError | None) -> list[Loss]:  # noqa: ARG002  # the port's
        """See `Kept`."""
        return []


class Renewal:
    """Renews some locks until they end. Its owner sleeps for `delay_ms`, calls `turn`, and so on."""

    def __init__(self, kept: Kept, transport: Transport, *, stop_after_ms: int) -> None:
        """Begin now.

        Args:
            kept: The locks.
            transport: Time.
            stop_after_ms: How long to renew, from now; the locks then run out by themselves (SES-25).
        """
        self._kept = kept
        self._transport = transport
        self._stop_at_ms = transport.monotonic_ms() + stop_after_ms
        # The longest that the locks were seen to last from a moment on; half of it is when to renew.
        self._span_ms = self._left_ms()
        self.is_finished = False

    @property
    def transport(self) -> Transport:
        """The time by which this renewal goes."""
        return self._transport

    def monotonic_ms(self) -> int:
        """Return the time by which this renewal goes."""
        return self._transport.monotonic_ms()

    def delay_ms(self) -> int:
        """Return how long to sleep before the next turn."""
        if not self._kept.is_live():
            return 0
        renews_for_ms = self._stop_at_ms - self._transport.monotonic_ms()
        delay_ms = min(self._due_ms(), renews_for_ms) if renews_for_ms > 0 else self._left_ms()
        return max(delay_ms, _PAUSE_MS_MIN)

    async def turn(self) -> list[Loss]:
        """Renew if it is time, and return what was lost since the last turn."""
        if not self._kept.is_live():
            self.is_finished = True
            return []
        left_ms = self._left_ms()
        if self._transport.monotonic_ms() >= self._stop_at_ms:
            return [] if left_ms > 0 else self._end(None)
        if self._due_ms() >= _PAUSE_MS_MIN:  # something else renewed it meanwhile
            return []
        try:
            losses = await self._kept.renew(max(left_ms, _BUDGET_MS_MIN))
        except RETRYABLE as error:
            self._span_ms = self._left_ms()  # so the next try is when half of what is left is over
            return self._end(error) if self._span_ms <= 0 else []
        except LockstepError as error:
            return self._end(error)
        if self._kept.is_live():
            self._span_ms = self._left_ms()
        return losses

    def _left_ms(self) -> int:
        return self._kept.locked_until_ms() - self._transport.now_ms()

    def _due_ms(self) -> int:
        """Return in how long half of the time is over that the locks had when they were last extended."""
        left_ms = self._left_ms()
        self._span_ms = max(self._span_ms, left_ms)
        return left_ms - self._span_ms // 2

    def stop(self) -> None:
        """End without a word, at once or after the turn under way, and let go of what was kept."""
        self._kept = _NothingKept()
        self.is_finished = True

    def _end(self, error: LockstepError | None) -> list[Loss]:
        self.is_finished = True
        return self._kept.lost(error) if self._kept.is_live() else []


def kept_messages(
    receiving: Receiving, renewable: ReceivedMessage | Sequence[ReceivedMessage]
) -> KeptMessages:
    """Return the locks of messages that a program wants to keep.

    Raises:
        TypeError: It is no message; or it is of a session, whose lock governs (C19).
        InvalidRequest: There is no message, or one has no lock (CLI-8).
    """
    messages = [renewable] if isinstance(renewable, ReceivedMessage) else list(renewable)
    if not messages:
        raise InvalidRequest("There must be at least one message to renew.")
    for message in messages:
        if not isinstance(message, ReceivedMessage):
            raise TypeError(
                f"A session or a received message is renewed, not {type(message).__name__}."
            )
        if message._delivery.session is not None:
            raise TypeError(
                "A message of a session has no lock of its own; register receiver.session."
            )
        if message.lock_token is None:
            raise InvalidRequest("A message of receive-and-delete has no lock to renew.")
    return KeptMessages(receiving, messages)


def check_renewable(mode: ReceiveMode) -> None:
    """Refuse a renewer on a receiver that locks nothing (CLI-8).

    Raises:
        InvalidRequest: The receiver deletes what it receives.
    """
    if mode is ReceiveMode.RECEIVE_AND_DELETE:
        raise InvalidRequest(
            "A receiver with receive-and-delete locks nothing, so nothing can be renewed."
        )


def log_loss(loss: Loss) -> None:
    """Say that a lock was lost, where the program gave no callback."""
    log.warning(
        "client.lock_lost", extra={"reason": loss.error.reason, "description": loss.error.message}
    )


def log_failed_callback() -> None:
    """Say that a program's callback raised; inside the handler of that exception."""
    log.exception("client.lock_renew_callback_failed")


def _stopped(message: ReceivedMessage) -> MessageLockLost:
    until = message.locked_until_utc
    return MessageLockLost(
        f"Renewal of message {message.sequence_number} had stopped as configured; its lock ran out at"
        f" {until.isoformat() if until else 'an unknown time'}."
    )
