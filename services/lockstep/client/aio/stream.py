"""The stream of the asyncio client.

Here belongs its public shape. Never here: how it works (`streams`, `settling`). The law: nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from lockstep.client import settling
from lockstep.client.aio.renewer import AutoLockRenewer
from lockstep.client.aio.session import Session
from lockstep.client.connection import Connection
from lockstep.client.message import Message
from lockstep.client.received import ReceivedMessage, SettlementFailure
from lockstep.client.receiving import ReceiverOptions
from lockstep.client.streams import Streaming
from lockstep.client.turning import KEEP_STATE, KeepState, TurnResult, commit_turn
from lockstep.client.values import seconds_to_ms


class QueueStream:
    """Delivers messages of one queue, or one session of it, over one stream. Made by `LockstepClient.open_stream`.

    Use it as `async with client.open_stream(...) as stream:`; entering it opens the stream and accepts the session.
    Iterating gives one message at a time, until none came for `max_wait_time`, or credit given by hand is used up.
    One task reads; any task may settle.

    Messages are settled by calls, as a receiver's are, so what a program decided survives a stream that broke. When
    a stream breaks because the server went away:

    - without a session it opens again by itself, for as long as the program waits anyway, with the credit that it
      had. What was delivered can still be settled, unless the queue has `release_on_disconnect` (RACE-19);
    - with a session, reading raises the reason, each time again. The session stays locked, and what was delivered
      can be settled, until its lock ends; with `release_on_disconnect` it was released at once. No stream can take up
      a lock of another one: close this one, which gives the session back, and open another one.
    """

    def __init__(
        self,
        connection: Connection,
        options: ReceiverOptions,
        renewer: AutoLockRenewer | None,
        credit: int,
    ) -> None:
        self._renewer = renewer
        self._session: Session | None = None
        self._max_wait_ms = options.max_wait_ms
        self._streaming = Streaming(connection, options, credit=credit)
        self._receiving = self._streaming.receiving

    @property
    def session(self) -> Session:
        """The held session: its id, state and lock.

        Raises:
            InvalidOperation: There is none: not accepted yet, or a stream without session.
        """
        self._receiving.check_held()
        assert self._session is not None
        return self._session

    @property
    def credit(self) -> int:
        """How many more messages the server may deliver."""
        return self._streaming.credit

    async def receive_message(self, max_wait_time: float | None = None) -> ReceivedMessage | None:
        """Return the next message; None when none came in time, or credit given by hand is used up.

        Cancelling the call loses nothing: what came meanwhile is returned by the next one.

        Args:
            max_wait_time: Seconds to wait; 0 = only what is here; None = as the stream was told, else for ever.

        Raises:
            TypeError, InvalidRequest: The wait is no number, or negative.
            InvalidOperation: Another task reads just now.
            SessionLockLost: The session's lock is gone; open another stream (`details["cause"]` says why).
            ClientClosed: The stream or its client was closed.
            LockstepError: The stream broke, see the class; or it could not be opened, as `__aenter__`.
        """
        wait_ms = self._max_wait_ms
        if max_wait_time is not None:
            wait_ms = seconds_to_ms(max_wait_time, "max_wait_time")
        await self._open()
        message = await self._streaming.receive(wait_ms)
        if message is not None and self._renewer is not None and self._session is None:
            self._renewer.register(self, message)
        return message

    def add_credit(self, count: int) -> None:
        """Allow `count` more messages to be delivered; only with `credit=0`. Makes no call to wait for.

        Args:
            count: From 1 to 4096, and with what is left no more than 4096.

        Raises:
            TypeError, InvalidRequest: The number is refused.
            InvalidOperation: The stream keeps up its credit by itself, or is not open.
            ClientClosed: The stream or its client was closed.
        """
        self._streaming.add_credit(count)

    async def drain(self) -> int:
        """Take back the credit that was not used and return it; only with `credit=0` (PRE-6).

        What was delivered before is still handed out; nothing else comes until there is new credit.

        Raises:
            InvalidOperation: The stream keeps up its credit by itself, or another task reads just now.
            LockstepError: The stream broke, see the class.
        """
        return await self._streaming.drain()

    async def complete_messages(
        self, messages: Sequence[ReceivedMessage]
    ) -> list[SettlementFailure]:
        """Remove messages for good, in one request, and return those that were not (empty = all were).

        Raises:
            ClientClosed, MessageAlreadySettled, InvalidOperation: Found here; no call was made.
            SessionLockLost: The session's lock is gone; they come again.
        """
        return await self._receiving.settle(messages, settling.COMPLETE)

    async def complete_message(self, message: ReceivedMessage) -> None:
        """Remove a message for good.

        Raises:
            ClientClosed, MessageAlreadySettled, InvalidOperation: Found here; no call was made.
            MessageLockLost, SessionLockLost: The lock is gone; the message comes again.
        """
        settling.raise_first(await self.complete_messages([message]))

    async def abandon_message(
        self,
        message: ReceivedMessage,
        *,
        properties: settling.Properties | None = None,
        delay: timedelta | None = None,
    ) -> None:
        """Put a message back in its place, delivery count + 1; see `complete_message`.

        Args:
            message: The message. In a session it comes again after the later ones that are here already.
            properties: Application properties to set on it (MSG-8).
            delay: Have it delivered again only after this time, at most 7 days (ADD-6).
        """
        outcome = settling.abandon(properties, delay)
        settling.raise_first(await self._receiving.settle([message], outcome))

    async def release_message(self, message: ReceivedMessage) -> None:
        """Put a message back in its place, delivery count unchanged; see `complete_message`."""
        settling.raise_first(await self._receiving.settle([message], settling.RELEASE))

    async def defer_message(
        self, message: ReceivedMessage, *, properties: settling.Properties | None = None
    ) -> None:
        """Set a message aside, for who asks for its sequence number (DEF-1); see `complete_message`.

        Args:
            message: The message. A receiver's `receive_deferred_messages` gets it.
            properties: Application properties to set on it (MSG-8).
        """
        outcome = settling.defer(properties)
        settling.raise_first(await self._receiving.settle([message], outcome))

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

    async def commit_turn(
        self,
        *,
        complete: Sequence[ReceivedMessage] = (),
        send: Sequence[Message] = (),
        state: bytes | str | KeepState | None = KEEP_STATE,
        if_version: int | None = None,
    ) -> TurnResult:
        """Complete messages, send messages and set the state of the held session, in one commit (ADD-8).

        Its arguments are those of `QueueReceiver.commit_turn`.

        Raises:
            ClientClosed, MessageAlreadySettled, InvalidOperation: Found here; no call was made.
            MessageLockLost, SessionLockLost: A message, or the session, is not held any more; nothing was done.
            StateConflict: The state has another version; nothing was done.
            MessageSizeExceeded, QuotaExceeded: Nothing was done.
            LockstepError: Any other.
        """
        return await commit_turn(self._receiving, complete, send, state, if_version)

    async def renew_message_lock(self, message: ReceivedMessage) -> datetime:
        """Move the lock of a message to now + lock duration and return until when it is held.

        Raises:
            TypeError: In a session the session's lock governs; use `session.renew_lock` (C19).
            ClientClosed, MessageAlreadySettled, InvalidOperation: Found here; no call was made.
            MessageLockLost: The lock is gone; an expired one is never revived.
        """
        settling.raise_first(await self._receiving.renew_messages([message]))
        until = message.locked_until_utc
        assert until is not None
        return until

    async def close(self) -> None:
        """End the stream, give back the session at once, and refuse further calls. A second close does nothing.

        What was delivered and not handed out goes back without a count. What the program was given of a plain queue
        and has not settled stays locked until its lock runs out; a session's goes back with the session (SES-22).

        Raises:
            LockstepError: The server could not be told within 5 s; the locks run out by themselves.
        """
        await self._streaming.close()

    async def __aenter__(self) -> Self:
        """Open the stream.

        Raises:
            NoSessionAvailable: None became available in time.
            SessionCannotBeLocked: Another receiver holds the session.
            InvalidOperation: A session queue without session, or the reverse.
            SettingNotAvailable: The broker of `lockstep.testing` has no streams.
            LockstepError: Any other, such as EntityNotFound.
        """
        await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReceivedMessage:
        message = await self.receive_message()
        if message is None:
            raise StopAsyncIteration
        return message

    async def _open(self) -> None:
        if self._renewer is not None:
            self._renewer.check_running()  # before anything is locked that nobody would renew
        if self._streaming.is_open:
            return
        await self._streaming.open()
        if self._receiving.is_holding:
            self._session = Session(self._receiving.held)
            if self._renewer is not None:
                self._renewer.register(self, self._session)
