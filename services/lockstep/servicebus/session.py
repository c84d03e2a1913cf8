"""The session of a blocking receiver.

Here belongs its shape under Azure's names. Never here: how it is held. The law: what needs the lock accepts the session
first.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from lockstep import Session
from lockstep.servicebus.exceptions import AutoLockRenewFailed, translating
from lockstep.servicebus.options import check_timeout


class ServiceBusSession:
    """The session of a receiver; made by the receiver.

    Attributes:
        auto_renew_error: Why an AutoLockRenewer lost its lock; None = it did not.
    """

    def __init__(self, accept: Callable[[], Session], session_id: str | None) -> None:
        """Stand for the session that `accept` returns; `session_id` is what was asked for."""
        self._accept = accept
        self._session_id = session_id
        self._held: Session | None = None
        self.auto_renew_error: AutoLockRenewFailed | None = None

    @property
    def session_id(self) -> str | None:
        """The session; None = any, and none was accepted yet."""
        return self._session_id if self._held is None else self._held.session_id

    @property
    def locked_until_utc(self) -> datetime | None:
        """Until when the lock is held, as last heard; None = it was not accepted yet."""
        return None if self._held is None else self._held.locked_until_utc

    def get_state(self, *, timeout: float | None = None) -> bytes | None:
        """Read the stored state; None = never set, or cleared. `timeout` is taken without effect.

        Raises:
            SessionLockLostError: The lock is gone.
        """
        check_timeout(timeout)
        with translating():
            return self._accept().get_state()

    def set_state(
        self, state: str | bytes | bytearray | None, *, timeout: float | None = None
    ) -> None:
        """Store a state for this holder and the next; None clears it. `timeout` is taken without effect.

        Raises:
            SessionLockLostError: The lock is gone; the state is as it was.
        """
        check_timeout(timeout)
        with translating():
            self._accept().set_state(bytes(state) if isinstance(state, bytearray) else state)

    def renew_lock(self, *, timeout: float | None = None) -> datetime:
        """Move the lock to now + lock duration and return until when it is held. `timeout` is taken without effect.

        Raises:
            SessionLockLostError: The lock is gone.
        """
        check_timeout(timeout)
        with translating():
            return self._accept().renew_lock()
