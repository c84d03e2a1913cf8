"""The blocking processor: calls a program's functions with messages.

Here belongs its public shape. Never here: how it works (`processing`, `session_processing`, `crew`). The
law: nothing is decided here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from lockstep.client import settling
from lockstep.client.blocking.crew import BlockingCrew
from lockstep.client.blocking.session import Session
from lockstep.client.connection import Connection
from lockstep.client.holding import HeldSession
from lockstep.client.processing import (
    Desk,
    Handlers,
    Processing,
    ProcessingFailure,
    ProcessorOptions,
    QueueProcessing,
    refuse_async,
)
from lockstep.client.received import ReceivedMessage
from lockstep.client.receiving import ReceiverOptions, Receiving
from lockstep.client.session_processing import SessionProcessing
from lockstep.client.transport import run_to_completion
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
        self, receiving: Receiving, session: Session | None, stopping: threading.Event
    ) -> None:
        self._receiving = receiving
        self._session = session
        self.lock_lost = threading.Event()
        self.stopping = stopping

    @property
    def session(self) -> Session:
        """The held session: its id and its state.

        Raises:
            InvalidOperation: There is none: the processor is of a plain queue.
        """
        if self._session is None:
            raise InvalidOperation("This processor is of a plain queue; there is no session.")
        return self._session

    def complete_message(self, message: ReceivedMessage) -> None:
        """Remove a message for good.

        Raises:
            ClientClosed, MessageAlreadySettled, InvalidOperation: Found here; no call was made.
            MessageLockLost, SessionLockLost: The lock is gone; the message comes again.
        """
        settling.raise_first(
            run_to_completion(self._receiving.settle([message], settling.COMPLETE))
        )

    def abandon_message(self, message: ReceivedMessage) -> None:
        """Put a message back in its place, delivery count + 1; see `complete_message`."""
        settling.raise_first(run_to_completion(self._receiving.settle([message], settling.ABANDON)))

    def release_message(self, message: ReceivedMessage) -> None:
        """Put a message back in its place, delivery count unchanged; see `complete_message`."""
        settling.raise_first(run_to_completion(self._receiving.settle([message], settling.RELEASE)))

    def dead_letter_message(
        self,
        message: ReceivedMessage,
        *,
        reason: str | None = None,
        error_description: str | None = None,
    ) -> None:
        """Move a message to the dead-letter store; see `complete_message`.

        Args:
            message: The message.
            reason: Why, at most 4096 characters.
            error_description: In more words, at most 4096 characters.
        """
        outcome = settling.dead_letter(reason, error_description)
        settling.raise_first(run_to_completion(self._receiving.settle([message], outcome)))


OnMessage = Callable[[ReceivedMessage, ProcessorContext], None]
"""Called with each message."""
OnError = Callable[[ProcessingFailure], None]
"""Called with what failed; the processor goes on."""
OnSession = Callable[[ProcessorContext], None]
"""Called when a session was accepted, and before it is given back."""


class QueueProcessor:
    """Calls a program's functions with the messages of a queue.

    Made by `LockstepClient.get_queue_processor` and `get_session_processor`. Use it as `with processor:`, or
    start and stop it; it may be started again.
    """

    def __init__(
        self,
        connection: Connection,
        receiver: ReceiverOptions,
        options: ProcessorOptions,
        handlers: Handlers,
    ) -> None:
        refuse_async(handlers)
        self._connection = connection
        self._receiver = receiver
        self._options = options
        self._handlers = handlers
        self._crew: BlockingCrew | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._crew is not None

    def start(self) -> None:
        """Begin to receive, in threads of its own.

        Raises:
            InvalidOperation: It runs already.
            ClientClosed: The client was closed.
        """
        if self._crew is not None:
            raise InvalidOperation(
                "This processor runs already; stop it before it is started again."
            )
        self._connection.check_open()
        crew = BlockingCrew(self._connection.transport)
        desk: Desk[ProcessorContext] = Desk(
            self._receiver.entity, self._options, self._handlers, crew
        )
        self._crew = (
            crew  # first, because a function that is called at once may look at the processor
        )
        crew.start(self._processing(desk, crew).work, self._options.workers)

    def stop(self) -> None:
        """Receive nothing more, and return when no function of the program runs; a second stop does nothing.

        What was received and not begun is given back, uncounted, and so are the sessions. A call that is
        not over within `stop_timeout` goes on in its thread, under a lock that is not renewed any more.

        Raises:
            InvalidOperation: It was called by a function that the processor calls; set an event there instead.
        """
        crew = self._crew
        if crew is None:
            return
        crew.stop(self._options.stop_ms)
        self._crew = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _processing(self, desk: Desk[ProcessorContext], crew: BlockingCrew) -> Processing:
        def context_of_message(receiving: Receiving) -> ProcessorContext:
            return ProcessorContext(receiving, None, crew.stopping)

        def context_of_session(receiving: Receiving, held: HeldSession) -> ProcessorContext:
            return ProcessorContext(receiving, Session(held), crew.stopping)

        if self._receiver.session_id is None:
            return QueueProcessing(self._connection, self._receiver, desk, context_of_message)
        return SessionProcessing(self._connection, self._receiver, desk, context_of_session)
