"""Renewing locks in the background, for blocking receivers.

Here belongs the renewer under Azure's names. Never here: when a lock is renewed (`client.renewal`). The law: every lost
lock is noted on its message or session, and told to the program once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from lockstep import AutoLockRenewer as InnerRenewer
from lockstep.servicebus.exceptions import translating
from lockstep.servicebus.message import ServiceBusReceivedMessage
from lockstep.servicebus.session import ServiceBusSession
from lockstep.servicebus.settling import check_lockable, closed_renewer, renew_failure

if TYPE_CHECKING:
    from lockstep.servicebus.receiver import ServiceBusReceiver

LockRenewFailureCallback = Callable[
    [ServiceBusReceivedMessage | ServiceBusSession, Exception | None], None
]
"""Called with what was registered, and why its lock is lost."""


class AutoLockRenewer:
    """Renews locks until settlement, close, or a maximum duration."""

    def __init__(
        self,
        max_lock_renewal_duration: float = 300,
        on_lock_renew_failure: LockRenewFailureCallback | None = None,
        executor: ThreadPoolExecutor | None = None,
        max_workers: int | None = None,
    ) -> None:
        """Be ready.

        Args:
            max_lock_renewal_duration: Seconds to renew each lock, from when it was registered.
            on_lock_renew_failure: Called once for each lost lock, in a thread of the renewer.
            executor: Taken without effect; the renewer has threads of its own.
            max_workers: Taken without effect.
        """
        del executor, max_workers
        with translating():
            self._inner = InnerRenewer(max_lock_renewal_duration)
        self._on_failure = on_lock_renew_failure
        self._is_closed = False

    def register(
        self,
        receiver: ServiceBusReceiver,
        renewable: ServiceBusReceivedMessage | ServiceBusSession,
        max_lock_renewal_duration: float | None = None,
        on_lock_renew_failure: LockRenewFailureCallback | None = None,
    ) -> None:
        """Begin to renew a message or a session.

        Args:
            receiver: Where it came from.
            renewable: What to keep locked.
            max_lock_renewal_duration: Seconds; None = the renewer's.
            on_lock_renew_failure: None = the renewer's.

        Raises:
            TypeError: It is neither.
            ValueError: It is not locked by itself.
            ServiceBusError: The renewer was closed.
        """
        self.check_running()
        check_lockable(renewable, is_session=isinstance(renewable, ServiceBusSession))
        note = renew_failure(renewable, on_lock_renew_failure or self._on_failure)
        with translating():
            target = (
                renewable._accept()
                if isinstance(renewable, ServiceBusSession)
                else renewable._received
            )
            self._inner.register(receiver._inner, target, max_lock_renewal_duration, note)

    def check_running(self) -> None:
        """Refuse use after close.

        Raises:
            ServiceBusError: The renewer was closed.
        """
        if self._is_closed:
            raise closed_renewer()

    def close(self, wait: bool = True) -> None:  # noqa: FBT001, FBT002  # the signature of azure-servicebus
        """Stop renewing. `wait` is taken without effect: the threads are always waited for."""
        del wait
        self._is_closed = True
        self._inner.close()

    def __enter__(self) -> Self:
        self.check_running()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
