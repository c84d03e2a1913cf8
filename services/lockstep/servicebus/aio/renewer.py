"""Renewing locks in the background, for asyncio receivers.

Here belongs the renewer under Azure's names. Never here: when a lock is renewed (`client.renewal`). The law: every lost
lock is noted on its message or session, and told to the program once.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self

from lockstep.aio import AutoLockRenewer as InnerRenewer
from lockstep.client.transport import run_to_completion
from lockstep.servicebus.aio.session import ServiceBusSession
from lockstep.servicebus.exceptions import translating
from lockstep.servicebus.message import ServiceBusReceivedMessage
from lockstep.servicebus.settling import check_lockable, closed_renewer, renew_failure

if TYPE_CHECKING:
    from lockstep.servicebus.aio.receiver import ServiceBusReceiver

AsyncLockRenewFailureCallback = Callable[
    [ServiceBusReceivedMessage | ServiceBusSession, Exception | None], Awaitable[None]
]
"""Awaited with what was registered, and why its lock is lost."""


class AutoLockRenewer:
    """Renews locks until settlement, close, or a maximum duration. It need not be entered, but must be closed."""

    def __init__(
        self,
        max_lock_renewal_duration: float = 300,
        on_lock_renew_failure: AsyncLockRenewFailureCallback | None = None,
        loop: AbstractEventLoop | None = None,
    ) -> None:
        """Be ready.

        Args:
            max_lock_renewal_duration: Seconds to renew each lock, from when it was registered.
            on_lock_renew_failure: Awaited once for each lost lock.
            loop: Taken without effect; the running one is used.
        """
        del loop
        with translating():
            self._inner = InnerRenewer(max_lock_renewal_duration)
        self._on_failure = on_lock_renew_failure
        self._has_begun = False
        self._is_closed = False

    def register(
        self,
        receiver: ServiceBusReceiver,
        renewable: ServiceBusReceivedMessage | ServiceBusSession,
        max_lock_renewal_duration: float | None = None,
        on_lock_renew_failure: AsyncLockRenewFailureCallback | None = None,
    ) -> None:
        """Begin to renew a message, or a session that was accepted.

        Args:
            receiver: Where it came from.
            renewable: What to keep locked.
            max_lock_renewal_duration: Seconds; None = the renewer's.
            on_lock_renew_failure: None = the renewer's.

        Raises:
            TypeError: It is neither.
            ValueError: It is not locked by itself, or the session was not accepted yet.
            ServiceBusError: The renewer was closed.
        """
        self.check_running()
        check_lockable(renewable, is_session=isinstance(renewable, ServiceBusSession))
        target = (
            renewable._held if isinstance(renewable, ServiceBusSession) else renewable._received
        )
        if target is None:
            raise ValueError("The session was not accepted yet; enter its receiver first.")
        note = renew_failure(renewable, on_lock_renew_failure or self._on_failure)
        with translating():
            self._inner.register(receiver._inner, target, max_lock_renewal_duration, note)

    def check_running(self) -> None:
        """Begin, unless that was done; refuse use after close.

        Raises:
            ServiceBusError: The renewer was closed.
        """
        if self._is_closed:
            raise closed_renewer()
        if not self._has_begun:
            # Programs for Azure register without entering. Entering only opens a group of tasks and never waits.
            run_to_completion(self._inner.__aenter__())
            self._has_begun = True

    async def close(self) -> None:
        """Stop renewing; locks then run out by themselves."""
        self._is_closed = True
        await self._inner.close()

    async def __aenter__(self) -> Self:
        self.check_running()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
