"""The blocking requester: asks over one queue and gets the answers over another.

Here belong its public shape and whose turn it is to receive. Never here: how it works (`requesting`). The
law: nothing is decided here.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from lockstep.client.blocking.renewer import AutoLockRenewer
from lockstep.client.blocking.session import Session
from lockstep.client.connection import Connection
from lockstep.client.holding import HeldSession
from lockstep.client.message import Message
from lockstep.client.received import ReceivedMessage
from lockstep.client.receiving import ReceiverOptions
from lockstep.client.requesting import FOREVER_S, Requesting, ignore_loss
from lockstep.client.transport import run_to_completion
from lockstep.client.values import seconds_to_ms
from lockstep.runtime.ids import SystemIds


class QueueRequester:
    """Sends requests and returns their answers. Made by `LockstepClient.get_requester`; threads may share it.

    Entering it with `with` accepts its own session of the reply queue, before anything is asked, so that no
    answer can be missed (SES-54); the session is kept locked until it is left.
    """

    def __init__(self, connection: Connection, request_queue: str, reply: ReceiverOptions) -> None:
        self._renewer = AutoLockRenewer()

        def keep(requesting: Requesting, held: HeldSession) -> None:
            self._renewer.register(requesting, Session(held), FOREVER_S, ignore_loss)

        self._requesting = Requesting(
            connection, request_queue, reply, SystemIds(), _BlockingTurn(), keep
        )

    @property
    def session_id(self) -> str:
        """The session of the reply queue that the answers come to."""
        return self._requesting.session_id

    def request(self, message: Message, *, timeout: float = 60) -> ReceivedMessage:
        """Send a message and return its answer, which is removed from the reply queue.

        The request carries the reply queue and the session; its answer carries the request's message id as
        correlation id. A responder that crashed may answer twice; the second answer is thrown away.

        Args:
            message: The request. Where it has no message id, it gets one.
            timeout: Seconds that sending it and waiting for the answer may take together.

        Raises:
            InvalidOperation: The requester was not entered, or waits for the answer to this message id already.
            OperationTimeout: No answer came in time; the request may still be worked on.
            SessionCannotBeLocked: The session was lost, and somebody else has it; see `LockstepClient.get_requester`.
            LockstepError: Any other, as of a send.
        """
        timeout_ms = seconds_to_ms(timeout, "timeout")
        return run_to_completion(self._requesting.request(message, timeout_ms))

    def close(self) -> None:
        """Give the session back. Answers that come later stay in the reply queue until they expire.

        Raises:
            LockstepError: The server could not be told within 5 s; the lock runs out by itself.
        """
        try:
            run_to_completion(self._requesting.close())
        finally:
            self._renewer.close()

    def __enter__(self) -> Self:
        self._renewer.__enter__()
        try:
            run_to_completion(self._requesting.open())
        except BaseException:
            self._renewer.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _BlockingTurn:
    """Whose turn it is among threads; see `Turn`."""

    def __init__(self) -> None:
        self._is_taken = False
        self._count = 0
        self._over = threading.Condition()

    def count(self) -> int:
        """See `Turn`."""
        return self._count

    def take(self) -> bool:
        """See `Turn`."""
        with self._over:
            if self._is_taken:
                return False
            self._is_taken = True
            return True

    def pass_on(self) -> None:
        """See `Turn`."""
        with self._over:
            self._is_taken = False
            self._count += 1
            self._over.notify_all()

    async def wait(self, count: int, wait_ms: int) -> None:
        """See `Turn`."""
        with self._over:
            self._over.wait_for(lambda: self._count > count, wait_ms / 1000)
