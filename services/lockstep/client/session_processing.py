"""Calling a program for each message of each session, whether the client blocks or not.

Here belongs the worker of a session processor. Never here: what plain queues have too (`processing`),
tasks and threads. The law: a session is worked on by one call at a time, in order; after a message that
could not be settled nothing else of its session is begun, and the session is given back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic

from lockstep.client.connection import Connection
from lockstep.client.holding import HeldSession
from lockstep.client.processing import Backoff, ContextT, Desk, FailureSource
from lockstep.client.receiving import ReceiverOptions, Receiving
from lockstep.client.renewal import KeptSession, Renewal
from lockstep.core.errors import (
    ClientClosed,
    LockstepError,
    NoSessionAvailable,
    SessionLockLost,
)


class SessionProcessing(Generic[ContextT]):
    """Calls a program for each message of the sessions of a queue."""

    def __init__(
        self,
        connection: Connection,
        options: ReceiverOptions,
        desk: Desk[ContextT],
        make_context: Callable[[Receiving, HeldSession], ContextT],
    ) -> None:
        """Work on what `options` name.

        Args:
            connection: The client's.
            options: Made by `receiver_options`, for the next available session.
            desk: Calls the program.
            make_context: Makes what the program gets besides the messages of one held session.
        """
        self._connection = connection
        self._options = replace(options, max_wait_ms=desk.crew.wait_ms_max)
        self._desk = desk
        self._crew = desk.crew
        self._make_context = make_context

    async def work(self) -> None:
        """Accept one session at a time and work on it until it is idle; see `Processing`."""
        backoff = Backoff(self._crew)
        while not self._crew.is_stopping():
            receiving = Receiving(self._connection, self._options)
            try:
                held = await self._crew.until_stop(receiving.open())
            except NoSessionAvailable:
                continue  # the normal sign of an idle queue (CLI-11)
            except ClientClosed:
                return
            except LockstepError as error:
                await self._desk.report(FailureSource.ACCEPT, error)
                await backoff.pause()
                continue
            if held is None:
                return
            if await self._hold(receiving, held):
                backoff.reset()
            else:
                await backoff.pause()

    async def _hold(self, receiving: Receiving, held: HeldSession) -> bool:
        """Work on a session and give it back; False = something failed that would fail again at once."""
        desk = self._desk
        context = self._make_context(receiving, held)

        async def on_loss(error: LockstepError) -> None:
            await self._lose(FailureSource.RENEW, error, held, context)

        renewal = Renewal(
            KeptSession(receiving, held, held),
            receiving.transport,
            stop_after_ms=desk.options.renew_ms,
        )
        end_renewal = self._crew.keep(renewal, on_loss)
        try:
            if self._crew.is_stopping():
                return True
            if not await self._tell(desk.handlers.on_session_opening, held, context):
                return False
            is_well = await self._work_on(receiving, held, context)
            await self._tell(desk.handlers.on_session_closing, held, context)
        finally:
            end_renewal()
            await self._give_back(receiving, held)
        return is_well

    async def _work_on(self, receiving: Receiving, held: HeldSession, context: ContextT) -> bool:
        """Work until the session is idle or lost, or was held for as long as its lock is renewed.

        The last lets other sessions have their turn, and no call begin under a lock that nobody renews.
        """
        options, now_ms = self._desk.options, receiving.transport.monotonic_ms
        leave_ms = now_ms() + options.renew_ms if options.renew_ms else None
        idle_ms = now_ms() + options.idle_ms
        while not self._crew.is_stopping() and not context.lock_lost.is_set():
            until_ms = idle_ms if leave_ms is None else min(idle_ms, leave_ms)
            left_ms = max(0, until_ms - now_ms())
            wait_ms = min(left_ms, self._crew.wait_ms_max)
            try:
                messages = await self._crew.until_stop(
                    receiving.receive(1, wait_ms, is_first=False)
                )
            except ClientClosed:
                return True
            except SessionLockLost as error:
                await self._lose(FailureSource.RECEIVE, error, held, context)
                return True
            except LockstepError as error:
                await self._desk.report(FailureSource.RECEIVE, error, session_id=held.session_id)
                return False
            if messages is None or self._crew.is_stopping() or context.lock_lost.is_set():
                return True  # what came and was not begun goes back, uncounted, with the session
            if not messages:
                if left_ms <= wait_ms:
                    return True
                continue
            if not await self._desk.handle(receiving, messages[0], context):
                return True
            if leave_ms is not None and now_ms() >= leave_ms:
                return True
            idle_ms = now_ms() + options.idle_ms
        return True

    async def _lose(
        self, source: FailureSource, error: LockstepError, held: HeldSession, context: ContextT
    ) -> None:
        """Tell, once, that the lock of a session is gone."""
        if not context.lock_lost.is_set():
            context.lock_lost.set()
            await self._desk.report(source, error, session_id=held.session_id)

    async def _tell(
        self, function: Callable[..., Any] | None, held: HeldSession, context: ContextT
    ) -> bool:
        """Call the program about a session, and return whether it raised nothing."""
        if function is None:
            return True
        try:
            await self._crew.call(function, context)
        except Exception as error:  # noqa: BLE001  # the program's own code must not end the processor
            await self._desk.report(FailureSource.HANDLER, error, session_id=held.session_id)
            return False
        return True

    async def _give_back(self, receiving: Receiving, held: HeldSession) -> None:
        try:
            await receiving.close()
        except ClientClosed:
            return  # the client gave it back
        except LockstepError as error:
            await self._desk.report(FailureSource.CLOSE, error, session_id=held.session_id)
