"""The held session of the blocking client.

Here belongs its public shape. Never here: how it works (`holding`). The law: nothing is decided here.
"""

from __future__ import annotations

from datetime import datetime

from lockstep.client.holding import HeldSession
from lockstep.client.transport import run_to_completion
from lockstep.client.values import datetime_of_ms


class Session:
    """A session that a receiver holds."""

    def __init__(self, held: HeldSession) -> None:
        self._held = held

    @property
    def session_id(self) -> str:
        """The session; with NEXT_AVAILABLE_SESSION, the one that was granted."""
        return self._held.session_id

    @property
    def grant(self) -> int:
        """The number of this grant; every grant of the session has a higher one."""
        return self._held.grant

    @property
    def state(self) -> bytes | None:
        """The state as it was when the session was accepted; `get_state` asks again."""
        return self._held.accepted_state

    @property
    def state_version(self) -> int:
        """The version of the state that this holder read or wrote last, beginning with the accept; 0 = never set.

        `get_state`, `set_state` and `commit_turn` move it; give it as `if_version` to write on top of that (ADD-7).
        """
        return self._held.state_version

    @property
    def locked_until_utc(self) -> datetime:
        """Until when the lock is held, by the broker's clock, as last heard: a receive moves it too."""
        return datetime_of_ms(self._held.locked_until_ms)

    def get_state(self) -> bytes | None:
        """Read the stored state; None = never set, or cleared.

        Raises:
            SessionLockLost: The lock is gone; accept the session again.
        """
        return run_to_completion(self._held.get_state())

    def set_state(self, value: bytes | str | None, *, if_version: int | None = None) -> int:
        """Store a state for this holder and the next, and return its new version.

        Args:
            value: Text is stored as UTF-8; None clears the state; empty bytes are a value.
            if_version: Store it only if this is the version of the state, 0 = never set (ADD-7).

        Raises:
            StateConflict: The state has another version; it is as it was.
            SessionLockLost: The lock is gone; the state is as it was.
            MessageSizeExceeded: The state is too large; it is as it was.
        """
        return run_to_completion(self._held.set_state(value, if_version))

    def renew_lock(self) -> datetime:
        """Move the lock to now + lock duration and return until when it is held.

        Raises:
            SessionLockLost: The lock is gone; an expired one is never revived.
        """
        return datetime_of_ms(run_to_completion(self._held.renew()))
