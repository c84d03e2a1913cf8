"""Calling a program for each message, whether the client blocks or not.

Here belong what all processors share, and the worker of a plain queue. Never here: the workers of
sessions (`session_processing`), tasks and threads (`aio.crew`, `blocking.crew`). The law: what a program
raises ends neither a worker nor another call, is told once, and its message is given back (CLI-2).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Final, Generic, Protocol, TypeVar

from lockstep.client import settling
from lockstep.client.connection import Connection
from lockstep.client.received import ReceivedMessage
from lockstep.client.receiving import ReceiverOptions, Receiving
from lockstep.client.renewal import KeptMessages, Renewal
from lockstep.client.values import seconds_to_ms
from lockstep.core.errors import (
    ClientClosed,
    InvalidRequest,
    LockstepError,
    MessageLockLost,
    SessionLockLost,
)
from lockstep.v1 import messaging_service_pb2 as messaging

CONCURRENCY_MAX: Final = 2_048
"""The most calls, or sessions, of one processor at a time."""

_PAUSE_MS_MIN: Final = 500
_PAUSE_MS_MAX: Final = 30_000

log = logging.getLogger("lockstep.client")

ResultT = TypeVar("ResultT")


class FailureSource(Enum):
    """What a processor was doing when something failed (CLI-6)."""

    ACCEPT = "accept"
    """Accepting the next session. That there is none is no failure (CLI-11)."""
    RECEIVE = "receive"
    """Receiving messages."""
    HANDLER = "handler"
    """Calling the program: on_message, on_session_opening or on_session_closing."""
    RENEW = "renew"
    """Renewing a lock, which is lost now."""
    SETTLE = "settle"
    """Completing, abandoning or releasing a message."""
    CLOSE = "close"
    """Giving a session back; its lock runs out by itself."""


@dataclass(frozen=True, slots=True)
class ProcessingFailure:
    """What failed in a processor, which goes on.

    Attributes:
        source: What the processor was doing.
        error: What was raised.
        queue: The queue, or dead-letter store, of the processor.
        session_id: The session; None = of a plain queue, or none was accepted.
        message: The message that it is about; None = about none.
    """

    source: FailureSource
    error: Exception
    queue: str
    session_id: str | None = None
    message: ReceivedMessage | None = None


@dataclass(frozen=True, slots=True)
class ProcessorOptions:
    """What a processor was asked to be.

    Attributes:
        workers: How many calls, or sessions, there are at a time.
        auto_complete: Whether a message is completed when its call returned.
        renew_ms: How long locks are renewed; 0 = not at all.
        stop_ms: How long calls that run may take to end when the processor is stopped.
        idle_ms: How long a session may have no message before it is given back.
    """

    workers: int
    auto_complete: bool
    renew_ms: int
    stop_ms: int
    idle_ms: int = 0


def processor_options(
    *,
    workers: int,
    auto_complete: bool,
    max_auto_lock_renewal_duration: float,
    stop_timeout: float,
    session_idle_timeout: float = 0,
) -> ProcessorOptions:
    """Return what a program asks of a processor, checked; durations are in seconds.

    Raises:
        TypeError: A duration is no number, or the concurrency no whole one.
        InvalidRequest: A duration is negative, or the concurrency not from 1 to 2048.
    """
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise TypeError(f"The concurrency must be an int, not {type(workers).__name__}.")
    if not 1 <= workers <= CONCURRENCY_MAX:
        raise InvalidRequest(
            f"A processor makes 1 to {CONCURRENCY_MAX} calls at a time; {workers} was given.",
            details={"configured": str(CONCURRENCY_MAX), "observed": str(workers)},
        )
    return ProcessorOptions(
        workers=workers,
        auto_complete=auto_complete,
        renew_ms=seconds_to_ms(max_auto_lock_renewal_duration, "max_auto_lock_renewal_duration"),
        stop_ms=seconds_to_ms(stop_timeout, "stop_timeout"),
        idle_ms=seconds_to_ms(session_idle_timeout, "session_idle_timeout"),
    )


@dataclass(frozen=True, slots=True)
class Handlers:
    """The functions of the program.

    Attributes:
        on_message: Called with each message and its context.
        on_error: Called with each `ProcessingFailure`; None = it is logged.
        on_session_opening: Called with the context of a session before its first message.
        on_session_closing: The same, after its last one and before it is given back.
    """

    on_message: Callable[..., Any]
    on_error: Callable[..., Any] | None = None
    on_session_opening: Callable[..., Any] | None = None
    on_session_closing: Callable[..., Any] | None = None


def refuse_async(handlers: Handlers) -> None:
    """Refuse functions whose body a client that does not await would never run.

    Raises:
        TypeError: One of them is async.
    """
    for field in fields(handlers):
        function = getattr(handlers, field.name)
        called = getattr(function, "__call__", None)  # noqa: B004  # of an object that is called
        if any(map(_is_async, (function, called))):
            raise TypeError(
                f"{field.name} is async, and the blocking client calls plain functions. Write it with def, or use the"
                " processor of lockstep.aio."
            )


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


class Signal(Protocol):
    """An event of either client."""

    def is_set(self) -> bool:
        """Whether it happened."""
        ...

    def set(self) -> None:
        """Let it happen."""
        ...


class Context(Protocol):
    """What a program's function gets besides the message."""

    @property
    def lock_lost(self) -> Signal:
        """Set when the lock is gone."""
        ...


ContextT = TypeVar("ContextT", bound=Context)
OnLoss = Callable[[LockstepError], Coroutine[Any, Any, None]]


class Crew(Protocol):
    """The tasks or threads that do the work of one processor, from its start to its stop.

    Attributes:
        wait_ms_max: The longest wait that a worker may begin; `stop` may have to sit it out.
    """

    wait_ms_max: int

    def is_stopping(self) -> bool:
        """Whether no new work may be begun."""
        ...

    async def until_stop(self, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
        """Wait for `work`, unless the crew is stopped before it is done.

        Then `work` is not begun, or cancelled where the client can cancel, and None is returned.
        """
        ...

    async def pause(self, delay_ms: int) -> None:
        """Wait for `delay_ms`, or until the crew is stopped."""
        ...

    async def call(self, function: Callable[..., Any], *arguments: object) -> None:
        """Call a function of the program and wait for its end; what it raises comes out."""
        ...

    async def briefly(self, work: Coroutine[Any, Any, object]) -> None:
        """Wait for `work`, but only as long as somebody who wants to stop can."""
        ...

    def keep(self, renewal: Renewal, on_loss: OnLoss) -> Callable[[], None]:
        """Renew in the background, and return what ends that; a report that has begun goes on."""
        ...


class Backoff:
    """Pauses between attempts that fail: 0.5 s, then twice as long each time, 30 s at most."""

    def __init__(self, crew: Crew) -> None:
        """Begin with the shortest pause."""
        self._crew = crew
        self._delay_ms = _PAUSE_MS_MIN

    async def pause(self) -> None:
        """Pause after a failure, or until the crew is stopped."""
        delay_ms = self._delay_ms
        self._delay_ms = min(2 * delay_ms, _PAUSE_MS_MAX)
        await self._crew.pause(delay_ms)

    def reset(self) -> None:
        """Begin anew after a success."""
        self._delay_ms = _PAUSE_MS_MIN


class Desk(Generic[ContextT]):
    """Calls the program about one message at a time, settles, and tells failures. Workers share it."""

    def __init__(
        self, entity: str, options: ProcessorOptions, handlers: Handlers, crew: Crew
    ) -> None:
        """Work for the processor of `entity`."""
        self.entity = entity
        self.options = options
        self.handlers = handlers
        self.crew = crew

    async def report(
        self,
        source: FailureSource,
        error: Exception,
        *,
        session_id: str | None = None,
        message: ReceivedMessage | None = None,
    ) -> None:
        """Tell the program of a failure; without a function to tell, log it. A message knows its session."""
        if message is not None and message._delivery.session is not None:
            session_id = message._delivery.session.session_id
        failure = ProcessingFailure(source, error, self.entity, session_id, message)
        if self.handlers.on_error is None:
            _log_failure(failure)
            return
        try:
            await self.crew.call(self.handlers.on_error, failure)
        except Exception:  # the program's own code must not end the processor
            log.exception("client.processor_callback_failed", extra={"queue": self.entity})

    async def handle(
        self, receiving: Receiving, message: ReceivedMessage, context: ContextT
    ) -> bool:
        """Call the program about a message, and settle that as it was asked to be.

        Returns:
            False when the message could not be settled, so that nothing after it may be worked on in its session.
        """
        try:
            await self.crew.call(self.handlers.on_message, message, context)
        except GeneratorExit:
            raise  # a coroutine that is thrown away must not await
        except Exception as error:  # noqa: BLE001  # the program's own code must not end the processor
            # Given back first: what the program does about the error may take its time, or be cancelled.
            is_settled = await self.settle(receiving, message, context, settling.ABANDON)
            await self.report(FailureSource.HANDLER, error, message=message)
            return is_settled
        except BaseException:
            # The time to end was over. The call has begun, so the delivery counts as with any other failure.
            await self.crew.briefly(self.settle(receiving, message, context, settling.ABANDON))
            raise
        if not self.options.auto_complete:
            return True
        return await self.settle(receiving, message, context, settling.COMPLETE)

    async def settle(
        self,
        receiving: Receiving,
        message: ReceivedMessage,
        context: ContextT,
        outcome: messaging.Settlement,
    ) -> bool:
        """Settle a message unless the program did, and return whether it is settled."""
        if message._is_settled:
            return True
        if context.lock_lost.is_set():
            return False  # that was told; the message comes again
        try:
            settling.raise_first(await receiving.settle([message], outcome))
        except LockstepError as error:
            if isinstance(error, SessionLockLost | MessageLockLost):
                context.lock_lost.set()
            await self.report(FailureSource.SETTLE, error, message=message)
            return False
        return True


class Processing(Protocol):
    """The work of a processor, for as many workers as its options say."""

    async def work(self) -> None:
        """Work until the crew is stopped, or the client closed."""
        ...


class QueueProcessing(Generic[ContextT]):
    """Calls a program for each message of a plain queue."""

    def __init__(
        self,
        connection: Connection,
        options: ReceiverOptions,
        desk: Desk[ContextT],
        make_context: Callable[[Receiving], ContextT],
    ) -> None:
        """Work on what `options` name.

        Args:
            connection: The client's.
            options: Made by `receiver_options`, without a session.
            desk: Calls the program.
            make_context: Makes what the program gets besides each message.
        """
        self._connection = connection
        self._desk = desk
        self._crew = desk.crew
        self._make_context = make_context
        self._receiving = Receiving(connection, options)

    async def work(self) -> None:
        """Receive one message at a time and call the program; see `Processing`."""
        backoff = Backoff(self._crew)
        while not self._crew.is_stopping():
            try:
                messages = await self._crew.until_stop(
                    self._receiving.receive(1, self._crew.wait_ms_max, is_first=False)
                )
            except ClientClosed:
                return
            except LockstepError as error:
                await self._desk.report(FailureSource.RECEIVE, error)
                await backoff.pause()
                continue
            backoff.reset()
            for message in messages or ():
                await self._work_on(message)

    async def _work_on(self, message: ReceivedMessage) -> None:
        desk, receiving = self._desk, self._receiving
        context = self._make_context(receiving)
        if self._crew.is_stopping():
            release = desk.settle(receiving, message, context, settling.RELEASE)
            await self._crew.briefly(release)
            return

        async def on_loss(error: LockstepError) -> None:
            if not context.lock_lost.is_set():
                context.lock_lost.set()
                await desk.report(FailureSource.RENEW, error, message=message)

        renewal = Renewal(
            KeptMessages(receiving, [message]),
            receiving.transport,
            stop_after_ms=desk.options.renew_ms,
        )
        end_renewal = self._crew.keep(renewal, on_loss)
        try:
            await desk.handle(receiving, message, context)
        finally:
            end_renewal()


def _log_failure(failure: ProcessingFailure) -> None:
    error = failure.error
    message = failure.message
    log.warning(
        "client.processing_failed",
        extra={
            "queue": failure.queue,
            "source": failure.source.value,
            "sequence": None if message is None else message.sequence_number,
            "reason": error.reason if isinstance(error, LockstepError) else type(error).__name__,
        },
        exc_info=error if failure.source is FailureSource.HANDLER else None,
    )
