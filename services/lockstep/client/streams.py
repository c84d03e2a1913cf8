"""Receiving over a stream with credit, whether it blocks or not.

Here belongs the life of one stream: opening, credit, breaking, closing. Never here: settling and renewing, which are
calls (`settling`, `holding`), because a call can be repeated without a second effect and a request on a stream that
broke cannot. The laws: what is on its way or waits here never exceeds the credit (PRE-5); what was not handed out when
the stream is closed is given back without a count.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

from lockstep.client import settling
from lockstep.client.calls import CERTAIN, RETRYABLE
from lockstep.client.connection import Connection
from lockstep.client.received import ReceivedMessage
from lockstep.client.receiving import ReceiverOptions, Receiving
from lockstep.client.transport import STREAM_MESSAGES, StreamCall, StreamTransport
from lockstep.client.values import NextAvailableSession, ms_to_duration
from lockstep.client.waiting import Wait
from lockstep.core.errors import (
    ClientClosed,
    InvalidOperation,
    InvalidRequest,
    LockstepError,
    NoSessionAvailable,
    OperationTimeout,
    SettingNotAvailable,
)
from lockstep.core.wording import sentence
from lockstep.v1 import messaging_service_pb2 as messaging

CREDIT_MAX: Final = 4096
"""The most credit that a stream may have."""
_CLOSE_BUDGET_MS: Final = 5_000

_Call = StreamCall[messaging.StreamMessagesRequest, messaging.StreamMessagesResponse]


def check_credit(credit: int, *, least: int) -> None:
    """Refuse a credit that no stream takes.

    Raises:
        TypeError: It is no whole number.
        InvalidRequest: It is less than `least`, or more than 4096.
    """
    if isinstance(credit, bool) or not isinstance(credit, int):
        raise TypeError(f"credit must be an int, not {type(credit).__name__}.")
    if not least <= credit <= CREDIT_MAX:
        raise InvalidRequest(
            f"credit must be from {least} to {CREDIT_MAX}; {credit} was given.",
            details={"observed": str(credit)},
        )


class Streaming:
    """Receives from one queue, or from one session of it, over one stream at a time.

    Attributes:
        receiving: What settles, renews and holds the session, over calls.
        locked_until_ms: See `Held`; of use only for what can be forgotten, which a stream is not.
    """

    def __init__(self, connection: Connection, options: ReceiverOptions, *, credit: int) -> None:
        """Be ready; `open` opens the stream.

        Args:
            connection: The client's.
            options: Made by `receiver_options`, with peek-lock.
            credit: The window that is kept up by itself; 0 = credit is given by hand.

        Raises:
            TypeError, InvalidRequest: The credit is refused.
        """
        check_credit(credit, least=0)
        self.receiving = Receiving(connection, options)
        self.locked_until_ms = 0
        self._connection = connection
        self._options = options
        self._window = credit
        self._reading = threading.Lock()
        self._counting = threading.Lock()  # never held across an await
        self._call: _Call | None = None
        self._credit = 0  # what the server has, or what it will have of a stream that opens again
        self._ready: deque[ReceivedMessage] = deque()
        self._broken: LockstepError | None = None
        self._was_opened = False
        self._is_closed = False

    @property
    def credit(self) -> int:
        """How many more messages the server may deliver."""
        return self._credit

    @property
    def is_open(self) -> bool:
        """Whether it was opened once, and not closed; a plain queue's may be about to open again."""
        return self._was_opened and not self._is_closed

    async def open(self) -> None:
        """Open the stream, with its session if one is wanted; does nothing where it is open.

        Raises:
            LockstepError: As `QueueStream` says.
        """
        with self._alone():
            await self._open_if_needed(None)

    async def receive(self, wait_ms: int | None) -> ReceivedMessage | None:
        """Return the next message; None = none came in time, or credit given by hand is used up.

        Raises:
            LockstepError: As `QueueStream` says.
        """
        with self._alone():
            wait = Wait(self._connection.transport, wait_ms)
            while True:
                call = await self._open_if_needed(wait)
                self._top_up(call)
                if self._ready:
                    return self._ready.popleft()
                if self._window == 0 and self._credit == 0:
                    return None
                wait.begin_call()
                try:
                    response = await call.read(within_ms=wait.left_ms)
                except LockstepError as error:
                    await self._end(call, error)
                    continue
                if response is None:
                    return None
                self._note(response)

    def add_credit(self, count: int) -> None:
        """Allow `count` more messages.

        Raises:
            TypeError, InvalidRequest: It is not from 1 to 4096, or it makes more than 4096 in all.
            InvalidOperation: The stream keeps its window by itself, or is not open.
            ClientClosed: The stream or its client was closed.
        """
        check_credit(count, least=1)
        self.receiving.check_open()
        if self._window:
            raise InvalidOperation(
                "This stream keeps up its credit by itself; open one with credit=0 to give it by hand."
            )
        with self._counting:
            check_credit(self._credit + count, least=1)
            if self._call is None:
                raise InvalidOperation("This stream is not open; enter it with `with` first.")
            self._credit += count
            self._call.write(messaging.StreamMessagesRequest(add_credit=count))

    async def drain(self) -> int:
        """Take back the credit that was not used and return it; what came before is still handed out (PRE-6).

        Raises:
            InvalidOperation: The stream keeps its window by itself, or another task or thread reads it just now.
            LockstepError: The stream broke.
        """
        if self._window:
            raise InvalidOperation("This stream keeps up its credit by itself; close it instead.")
        with self._alone():
            call = await self._open_if_needed(None)
            call.write(messaging.StreamMessagesRequest(drain=messaging.StreamDrain()))
            within_ms = self._connection.calls.timeout_ms
            while True:
                try:
                    response = await call.read(within_ms=within_ms)
                except LockstepError as error:
                    await self._end(call, error)
                    returned, self._credit = self._credit, 0
                    return returned  # nothing comes over a stream that is over
                if response is None:
                    raise OperationTimeout(f"The stream did not answer within {within_ms} ms.")
                self._note(response)
                if response.HasField("drained"):
                    return response.drained.returned_credit

    async def close(self) -> None:
        """End the stream and give back the session, or the messages that were not handed out. Twice is once.

        Raises:
            LockstepError: The server could not be told; the locks run out by themselves.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._connection.remove_held(self)
        try:
            if self._call is not None and await self._close_call(self._call):
                await self._give_back()
        finally:
            # A session that the stream gave back already is left alone; a stream that broke gave nothing back.
            await self.receiving.close()

    async def release(self) -> None:
        """See `Held`."""
        await self.close()

    # --- opening ---------------------------------------------------------------------------------

    async def _open_if_needed(self, waiting: Wait | None) -> _Call:
        if self._is_closed:
            raise ClientClosed(f"This stream of '{self._options.entity}' was closed.")
        self.receiving.check_open()
        if self._broken is not None:
            raise self._told(self._broken) from self._broken
        if self._call is None:
            await self._open(0 if waiting is None else waiting.left_ms)
            assert self._call is not None
        return self._call

    async def _open(self, patience_ms: int | None) -> None:
        """Open a stream, waiting for the next available session as long as the options say."""
        calls, transport = self._connection.calls, self._connection.transport
        is_next = isinstance(self._options.session_id, NextAvailableSession)
        wait = Wait(transport, self._options.max_wait_ms if is_next else 0)
        call: _Call | None = None
        while call is None:
            wait.begin_call()
            try:
                call = await calls.repeat(
                    lambda: self._open_once(wait.call_ms),
                    patience_ms=wait.left_ms if is_next else patience_ms,
                )
            except NoSessionAvailable:
                self.receiving.check_open()
                if wait.was_last_call():
                    raise
        self._was_opened = True
        self._connection.add_held(self)
        with self._counting:
            self._call = call
            if self._credit:  # of the stream before, whose credit ended with it (PRE-7)
                call.write(messaging.StreamMessagesRequest(add_credit=self._credit))

    async def _open_once(self, wait_ms: int) -> _Call:
        transport = self._connection.transport
        if not isinstance(transport, StreamTransport):
            raise SettingNotAvailable("This broker has no streams; use a receiver, or a server.")
        opening = self._opening(wait_ms)
        call = await transport.open_stream(STREAM_MESSAGES)
        try:
            call.write(messaging.StreamMessagesRequest(open=opening))
            within_ms = self._connection.calls.timeout_ms + wait_ms
            response = await call.read(within_ms=within_ms)
            if response is None:
                raise OperationTimeout(
                    f"The stream of '{self._options.entity}' did not open within {within_ms} ms."
                )
            if response.opened.HasField("session"):
                self.receiving.adopt(response.opened.session)
            self.receiving.check_open()  # closed meanwhile?
        except BaseException as error:
            await call.finish()
            if opening.HasField("session") and not isinstance(error, CERTAIN):
                await self._undo(opening)
            raise
        return call

    def _opening(self, wait_ms: int) -> messaging.StreamOpen:
        wanted = self._options.session_id
        opening = messaging.StreamOpen(
            namespace=self._connection.namespace,
            entity=self._options.entity,
            receiver_client_id=self._options.client_identifier or self._connection.holder_name,
            max_wait=ms_to_duration(wait_ms),
            request_id=self._connection.calls.new_request_id(),
        )
        if isinstance(wanted, NextAvailableSession):
            opening.session.SetInParent()
        elif wanted is not None:
            opening.session.session_id = wanted
        return opening

    async def _undo(self, opening: messaging.StreamOpen) -> None:
        """Give back the session that a stream may have accepted that nobody will use (BAT-9)."""
        undo = messaging.CancelRequestRequest(
            namespace=opening.namespace, entity=opening.entity, request_id=opening.request_id
        )
        if opening.session.HasField("session_id"):
            undo.session_id = opening.session.session_id
        await self._connection.calls.undo(undo)

    # --- credit ----------------------------------------------------------------------------------

    def _top_up(self, call: _Call) -> None:
        """Fill the window when half of it is used."""
        with self._counting:
            used = self._credit + len(self._ready)
            if used <= self._window // 2 and used < self._window:
                self._credit += self._window - used
                call.write(messaging.StreamMessagesRequest(add_credit=self._window - used))

    def _note(self, response: messaging.StreamMessagesResponse) -> None:
        match response.WhichOneof("response"):
            case "messages":
                messages = self.receiving.read(response.messages)
                with self._counting:
                    self._ready.extend(messages)
                    self._credit -= len(messages)
            case "drained":
                with self._counting:
                    self._credit -= response.drained.returned_credit
            case _:
                return  # the end is near, or something of a later release that nobody here asked for

    # --- the end ---------------------------------------------------------------------------------

    async def _end(self, call: _Call, error: LockstepError) -> None:
        """Let a stream that is over go; a plain queue's opens again with the next turn, where that may help.

        Raises:
            ClientClosed: The stream or its client was closed meanwhile.
            LockstepError: Why it broke.
        """
        if self._is_closed or self.receiving.is_closed:
            raise ClientClosed("This stream was closed while it was read.") from error
        await call.finish()
        with self._counting:
            self._call = None
            if self._window:
                self._credit = 0
        if self._options.session_id is None and isinstance(error, RETRYABLE):
            return
        self._broken = error
        raise self._told(error) from error

    def _told(self, error: LockstepError) -> LockstepError:
        """Return what the program gets to see of the error that broke its stream."""
        if not isinstance(error, RETRYABLE):
            return error
        told = type(error)(
            f"The stream of '{self._options.entity}' broke: {sentence(error.message)} Its session stays locked as"
            " long as its lock lasts, unless the queue has release_on_disconnect; close this stream, then open"
            " another one.",
            details=error.details,
        )
        told.__cause__ = error
        return told

    async def _close_call(self, call: _Call) -> bool:
        """Close the stream and read what was on its way; whether the server has confirmed it."""
        transport = self._connection.transport
        ends_ms = transport.monotonic_ms() + _CLOSE_BUDGET_MS
        call.end_writing()
        try:
            while True:
                left_ms = ends_ms - transport.monotonic_ms()
                response = await call.read(within_ms=left_ms) if left_ms > 0 else None
                if response is None:
                    return False
                self._note(response)
        except ClientClosed:
            return True
        except LockstepError:
            return (
                False  # it broke before; what it held runs out by itself, or was released with it
            )
        finally:
            await call.finish()

    async def _give_back(self) -> None:
        """Release what was not handed out of a plain queue, uncounted; a session goes back with its messages."""
        left, self._ready = list(self._ready), deque()
        if left and self._options.session_id is None:
            # One that is not locked any more is whose it is now.
            await settling.settle(self._connection, self._options.entity, left, settling.RELEASE)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Refuse a second reader."""
        if not self._reading.acquire(blocking=False):
            raise InvalidOperation(
                "Another task or thread reads this stream just now. Read it in one, and hand its messages to others."
            )
        try:
            yield
        finally:
            self._reading.release()
