"""A held session, whether its calls block or not.

Here belongs what a holder may do with the session itself: state, renewal, release. Never here:
messages (`receiving`). The law: every call shows the token of the grant it was made for, so a holder
that was replaced is refused (SES-26).
"""

from __future__ import annotations

from lockstep.client.connection import Connection
from lockstep.client.transport import (
    GET_SESSION_STATE,
    RELEASE_SESSION,
    RENEW_SESSION_LOCK,
    SET_SESSION_STATE,
)
from lockstep.client.values import timestamp_to_ms
from lockstep.core.errors import ClientClosed, NotFound, SessionLockLost
from lockstep.v1 import messaging_service_pb2 as messaging

_RELEASE_BUDGET_MS = 5_000


class HeldSession:
    """One grant of one session.

    Attributes:
        lock: What each call under the grant shows.
        grant: The number of the grant.
        accepted_state: The state that the last holder left, as it was at the accept.
        state_version: Of the state that this holder read or wrote last, beginning with the accept; 0 = never set.
        locked_until_ms: Until when the lock is held, by the broker's clock, as last heard.
    """

    def __init__(
        self,
        connection: Connection,
        entity: str,
        accepted: messaging.AcceptSessionResponse,
    ) -> None:
        """Hold what `accepted` granted on `entity`."""
        self._connection = connection
        self._entity = entity
        self._is_released = False
        self.lock = accepted.session
        self.grant = accepted.grant
        self.locked_until_ms = timestamp_to_ms(accepted.locked_until)
        self.accepted_state = accepted.state.value if accepted.state.HasField("value") else None
        self.state_version = accepted.state.version

    @property
    def is_released(self) -> bool:
        """Whether it was given back, by its receiver or with its client."""
        return self._is_released

    @property
    def session_id(self) -> str:
        """The session."""
        return self.lock.session_id

    async def get_state(self) -> bytes | None:
        """Read the stored state; None = never set, or cleared.

        Raises:
            SessionLockLost: The lock is gone; accept the session again.
        """
        self._check_open()
        request = messaging.GetSessionStateRequest(
            namespace=self._connection.namespace, entity=self._entity, session=self.lock
        )
        response = await self._connection.calls.call(GET_SESSION_STATE, request)
        self.state_version = response.state.version
        return response.state.value if response.state.HasField("value") else None

    async def set_state(self, value: bytes | str | None, if_version: int | None = None) -> int:
        """Store a state and return its new version.

        Args:
            value: Text is stored as UTF-8; None clears the state; empty bytes are a value (SES-41).
            if_version: Store it only if this is the version of the state (ADD-7); None = whatever it is.

        Raises:
            StateConflict: The state has another version; it is as it was.
            SessionLockLost: The lock is gone; the state is as it was.
            MessageSizeExceeded: The state is too large; it is as it was.
        """
        self._check_open()
        if not isinstance(value, bytes | str | None):
            raise TypeError(f"A session state is bytes, str or None, not {type(value).__name__}.")
        request = messaging.SetSessionStateRequest(
            namespace=self._connection.namespace,
            entity=self._entity,
            request_id=self._connection.calls.new_request_id(),
            session=self.lock,
            value=value.encode() if isinstance(value, str) else value,
            if_version=if_version,
        )
        response = await self._connection.calls.call(SET_SESSION_STATE, request)
        self.state_version = response.version
        return response.version

    async def renew(self, *, budget_ms: int | None = None) -> int:
        """Move the lock to now + lock duration and return until when it is held, in ms since the epoch.

        Args:
            budget_ms: How long all tries together may take; None = as long as the retries last.

        Raises:
            SessionLockLost: The lock is gone; an expired one is never revived.
        """
        self._check_open()
        request = messaging.RenewSessionLockRequest(
            namespace=self._connection.namespace, entity=self._entity, session=self.lock
        )
        response = await self._connection.calls.call(
            RENEW_SESSION_LOCK, request, budget_ms=budget_ms
        )
        self.locked_until_ms = timestamp_to_ms(response.locked_until)
        return self.locked_until_ms

    async def release(self) -> None:
        """Give the session back at once and refuse its further use; one that is lost already is left alone.

        Raises:
            LockstepError: The server could not be told within 5 s; the lock runs out by itself.
        """
        self._is_released = True
        request = messaging.ReleaseSessionRequest(
            namespace=self._connection.namespace,
            entity=self._entity,
            request_id=self._connection.calls.new_request_id(),
            session=self.lock,
        )
        try:
            await self._connection.calls.call(
                RELEASE_SESSION, request, budget_ms=_RELEASE_BUDGET_MS
            )
        except (SessionLockLost, NotFound):
            return  # the lock, or the whole queue, went before

    def _check_open(self) -> None:
        if self._is_released:
            raise ClientClosed(
                f"The receiver that held session '{self.session_id}' was closed; get another one."
            )
        self._connection.check_open()
