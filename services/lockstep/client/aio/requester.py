"""The asyncio requester: asks over one queue and gets the answers over another.

Here belong its public shape and whose turn it is to receive. Never here: how it works (`requesting`). The
law: nothing is decided here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

from lockstep.client.aio.renewer import AutoLockRenewer
from lockstep.client.aio.session import Session
from lockstep.client.connection import Connection
from lockstep.client.holding import HeldSession
from lockstep.client.message import Message
from lockstep.client.received import ReceivedMessage
from lockstep.client.receiving import ReceiverOptions
from lockstep.client.requesting import FOREVER_S, Requesting, ignore_loss
from lockstep.client.values import seconds_to_ms
from lockstep.runtime.ids import SystemIds


class QueueRequester:
    """Sends requests and returns their answers. Made by `LockstepClient.get_requester`; tasks may share it.

    Entering it with `async with` accepts its own session of the reply queue, before anything is asked, so that no
    answer can be missed (SES-54); the session is kept locked until it is left.
    """

    def __init__(self, connection: Connection, request_queue: str, reply: ReceiverOptions) -> None:
        self._renewer = AutoLockRenewer()

        def keep(requesting: Requesting, held: HeldSession) -> None:
            self._renewer.register(requesting, Session(held), FOREVER_S, ignore_loss)

        self._requesting = Requesting(
            connection, request_queue, reply, SystemIds(), _AioTurn(), keep
        )

    @property
    def session_id(self) -> str:
        """The session of the reply queue that the answers come to."""
        return self._requesting.session_id

    async def request(self, message: Message, *, timeout: float = 60) -> ReceivedMessage:  # noqa: ASYNC109 - all tries together, as for a send
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
        return await self._requesting.request(message, timeout_ms)

    async def close(self) -> None:
        """Give the session back. Answers that come later stay in the reply queue until they expire.

        Raises:
            LockstepError: The server could not be told within 5 s; the lock runs out by itself.
        """
        try:
            await self._requesting.close()
        finally:
            await self._renewer.close()

    async def __aenter__(self) -> Self:
        await self._renewer.__aenter__()
        try:
            await self._requesting.open()
        except BaseException:
            await self._renewer.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class _AioTurn:
    """Whose turn it is among tasks; see `Turn`."""

    def __init__(self) -> None:
        self._is_taken = False
        self._count = 0
        self._over = asyncio.Event()

    def count(self) -> int:
        """See `Turn`."""
        return self._count

    def take(self) -> bool:
        """See `Turn`."""
        if self._is_taken:
            return False
        self._is_taken = True
        return True

    def pass_on(self) -> None:
        """See `Turn`."""
        self._is_taken = False
        self._count += 1
        self._over.set()
        self._over = asyncio.Event()

    async def wait(self, count: int, wait_ms: int) -> None:
        """See `Turn`."""
        if self._count > count:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_ms / 1000):
                await self._over.wait()
