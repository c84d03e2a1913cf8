"""The asyncio processor: calls a program's functions with messages.

Here belongs its public shape. Never here: how it works (`processing`, `session_processing`, `crew`). The
law: nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from lockstep.client import settling
from lockstep.client.aio.crew import AioCrew
from lockstep.client.aio.session import Session
from lockstep.client.connection import Connection
from lockstep.client.holding import HeldSession
from lockstep.client.message import Message
from lockstep.client.processing import (
    Desk,
    Handlers,
    Processing,
    ProcessingFailure,
    ProcessorOptions,
    QueueProcessing,
)
from lockstep.client.received import ReceivedMessage
from lockstep.client.receiving import ReceiverOptions, Receiving
from lockstep.client.session_processing import SessionProcessing
from lockstep.client.turning import KEEP_STATE, KeepState, TurnResult, commit_turn
from lockstep.core.errors import InvalidOperation


class ProcessorContext:
    """What a function of the program gets besides the message: how to settle it, and whether that still can be.

    On a plain queue there is one for each message; on a session queue one for as long as the session is held, which
    may keep what the program sets on it.

    Attributes:
        lock_lost: Set when the lock of the message, or of the session, is gone: what is done now, somebody else may be
            doing too, so stop (CLI-6).
        stopping: Set when the processor is being stopped: end soon.
    """

    def __init__(
        self, receiving: Receiving, session: Session | None, stopping: asyncio.Event
    ) -> None:
        self._receiving = receiving
        self._session = session
        self.lock_lost = asyncio.Event()
        self.stopping = stopping

    @property
    def session(self) -> Session:
        """The held session: its id and its state.

        Raises:
            InvalidOperation: There is none: the processor is of a plain queue.
        """
        self._check_session()
        assert self._session is not None
        return self._session

    async def complete_message(self, message: ReceivedMessage) -> None:
        """Remove a message for good.

        Raises:
            ClientClosed, MessageAlreadySettled, InvalidOperation: Found here; no call was made.
            MessageLockLost, SessionLockLost: The lock is gone; the message comes again.
        """
        settling.raise_first(await self._receiving.settle([message], settling.COMPLETE))

    async def abandon_message(
        self,
        message: ReceivedMessage,
        *,
        properties: settling.Properties | None = None,
        delay: timedelta | None = None,
    ) -> None:
        """Put a message back in its place, delivery count + 1; see `complete_message`.

        Args:
            message: The message.
            properties: Application properties to set on it (MSG-8).
            delay: Have it delivered again only after this time, at most 7 days (ADD-6). In a session nothing younger is
                delivered before; in a plain queue the others go ahead.
        """
        outcome = settling.abandon(properties, delay)
        settling.raise_first(await self._receiving.settle([message], outcome))

    async def release_message(self, message: ReceivedMessage) -> None:
        """Put a message back in its place, delivery count unchanged; see `complete_message`."""
        settling.raise_first(await self._receiving.settle([message], settling.RELEASE))

    async def defer_message(
        self, message: ReceivedMessage, *, properties: settling.Properties | None = None
    ) -> None:
        """Set a message aside for who asks for it by its sequence number, delivery count + 1; see `complete_message`.

        Args:
            message: The message.
            properties: Application properties to set on it (MSG-8).
        """
        settling.raise_first(await self._receiving.settle([message], settling.defer(properties)))

    async def dead_letter_message(
        self,
        message: ReceivedMessage,
        *,
        reason: str | None = None,
        error_description: str | None = None,
        properties: settling.Properties | None = None,
    ) -> None:
        """Move a message to the dead-letter store; see `complete_message`.

        Args:
            message: The message.
            reason: Why, at most 4096 characters.
            error_description: In more words, at most 4096 characters.
            properties: Application properties to set on it (MSG-8).
        """
        outcome = settling.dead_letter(reason, error_description, properties)
        settling.raise_first(await self._receiving.settle([message], outcome))

    async def receive_deferred_messages(
        self, sequence_numbers: int | Sequence[int]
    ) -> list[ReceivedMessage]:
        """Return deferred messages of the held session by their sequence numbers, all of them or none (DEF-2).

        They are under the lock of the session and are never settled by themselves: what is not settled when the
        session is given back is deferred again.

        Raises:
            InvalidOperation: The processor is of a plain queue, where nobody would renew their locks.
            MessageNotFound: One of them is not deferred; none was received.
            SessionLockLost: The session's lock is gone.
        """
        self._check_session()
        return await self._receiving.receive_deferred(sequence_numbers)

    async def commit_turn(
        self,
        *,
        complete: Sequence[ReceivedMessage] = (),
        send: Sequence[Message] = (),
        state: bytes | str | KeepState | None = KEEP_STATE,
        if_version: int | None = None,
    ) -> TurnResult:
        """Complete messages, send messages and set the state of the held session, in one commit (ADD-8).

        A message that it completed is not settled again by `auto_complete`.

        Args:
            complete: Messages of the session that are done.
            send: Messages for the same queue, to this session or others.
            state: Text is stored as UTF-8; None clears the state; KEEP_STATE leaves it as it is.
            if_version: Only if this is the version of the state, 0 = never set (ADD-7).

        Raises:
            InvalidOperation: The processor is of a plain queue; or found here, as MessageAlreadySettled is.
            MessageLockLost, SessionLockLost: A message, or the session, is not held any more; nothing was done.
            StateConflict: The state has another version; nothing was done.
            MessageSizeExceeded, QuotaExceeded: Nothing was done.
        """
        self._check_session()
        return await commit_turn(self._receiving, complete, send, state, if_version)

    def _check_session(self) -> None:
        if self._session is None:
            raise InvalidOperation("This processor is of a plain queue; there is no session.")


OnMessage = Callable[[ReceivedMessage, ProcessorContext], Awaitable[None] | None]
"""Called with each message."""
OnError = Callable[[ProcessingFailure], Awaitable[None] | None]
"""Called with what failed; the processor goes on."""
OnSession = Callable[[ProcessorContext], Awaitable[None] | None]
"""Called when a session was accepted, and before it is given back."""


class QueueProcessor:
    """Calls a program's functions with the messages of a queue.

    Made by `LockstepClient.get_queue_processor` and `get_session_processor`. Use it as `async with processor:`, or
    start and stop it; it may be started again.
    """

    def __init__(
        self,
        connection: Connection,
        receiver: ReceiverOptions,
        options: ProcessorOptions,
        handlers: Handlers,
    ) -> None:
        self._connection = connection
        self._receiver = receiver
        self._options = options
        self._handlers = handlers
        self._crew: AioCrew | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._crew is not None

    async def start(self) -> None:
        """Begin to receive.

        Raises:
            InvalidOperation: It runs already.
            ClientClosed: The client was closed.
        """
        if self._crew is not None:
            raise InvalidOperation(
                "This processor runs already; stop it before it is started again."
            )
        self._connection.check_open()
        crew = AioCrew(self._connection.transport)
        desk: Desk[ProcessorContext] = Desk(
            self._receiver.entity, self._options, self._handlers, crew
        )
        self._crew = (
            crew  # first, because a function that is called at once may look at the processor
        )
        await crew.start(self._processing(desk, crew).work, self._options.workers)

    async def stop(self) -> None:
        """Receive nothing more, and return when no function of the program runs; a second stop does nothing.

        What was received and not begun is given back, uncounted, and so are the sessions. A call that is
        not over within `stop_timeout` is cancelled, and its message abandoned.

        Raises:
            InvalidOperation: It was called by a function that the processor calls; set an event there instead.
        """
        crew = self._crew
        if crew is None:
            return
        await crew.stop(self._options.stop_ms)
        self._crew = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _processing(self, desk: Desk[ProcessorContext], crew: AioCrew) -> Processing:
        def context_of_message(receiving: Receiving) -> ProcessorContext:
            return ProcessorContext(receiving, None, crew.stopping)

        def context_of_session(receiving: Receiving, held: HeldSession) -> ProcessorContext:
            return ProcessorContext(receiving, Session(held), crew.stopping)

        if self._receiver.session_id is None:
            return QueueProcessing(self._connection, self._receiver, desk, context_of_message)
        return SessionProcessing(self._connection, self._receiver, desk, context_of_session)
