"""Receiving, whether it blocks or not.

Here belongs what both receivers do. Never here: the public classes (`aio`, `blocking`), settling
(`settling`), renewal in the background (`renewal`). The law: between a response that brought messages
and the program that asked for them there is no await, so no cancellation can lose them.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.client import settling
from lockstep.client.connection import Connection
from lockstep.client.holding import HeldSession
from lockstep.client.received import (
    Delivery,
    ReceivedMessage,
    SettlementFailure,
    delivered_messages,
)
from lockstep.client.transport import (
    ACCEPT_SESSION,
    RECEIVE_DEFERRED_MESSAGES,
    RECEIVE_MESSAGES,
    Transport,
)
from lockstep.client.values import (
    MessageState,
    NextAvailableSession,
    ReceiveMode,
    SubQueue,
    check_id,
    ms_to_duration,
    seconds_to_ms,
    timestamp_to_ms,
)
from lockstep.client.waiting import Wait
from lockstep.core.errors import (
    ClientClosed,
    InvalidOperation,
    InvalidRequest,
    LockstepError,
    NoSessionAvailable,
    RequestIdExpired,
    SessionLockLost,
    SettingNotAvailable,
)
from lockstep.v1 import messaging_service_pb2 as messaging

DEAD_LETTER_PATH: Final = "/$DeadLetterQueue"
RECEIVE_WAIT_MS: Final = 60_000
"""How long a receive waits when nobody says (BAT-8)."""
_COUNT_MAX: Final = 65_536  # what an installation may allow at most; most allow 4096

_WIRE_MODE: Final = {
    ReceiveMode.PEEK_LOCK: messaging.RECEIVE_MODE_PEEK_LOCK,
    ReceiveMode.RECEIVE_AND_DELETE: messaging.RECEIVE_MODE_RECEIVE_AND_DELETE,
}


@dataclass(frozen=True, slots=True)
class ReceiverOptions:
    """What a receiver was asked to be.

    Attributes:
        queue: The queue.
        session_id: The session to hold; None = no session.
        max_wait_ms: How long accepts, receives and iteration wait; None = each its own default.
        mode: Whether messages are locked or gone when they were received.
        sub_queue: The store beside the queue to receive from; None = the queue proper.
        client_identifier: How the receiver shows up in listings; None = as its client.
    """

    queue: str
    session_id: str | NextAvailableSession | None = None
    max_wait_ms: int | None = None
    mode: ReceiveMode = ReceiveMode.PEEK_LOCK
    sub_queue: SubQueue | None = None
    client_identifier: str | None = None

    @property
    def entity(self) -> str:
        """The path that calls name."""
        return self.queue if self.sub_queue is None else self.queue + DEAD_LETTER_PATH


def receiver_options(
    queue: str,
    *,
    session_id: str | NextAvailableSession | None,
    max_wait_time: float | None,
    receive_mode: ReceiveMode | str,
    sub_queue: SubQueue | str | None,
    client_identifier: str | None,
    prefetch_count: int,
) -> ReceiverOptions:
    """Return what a program asks of a receiver, checked; the names are those of `get_queue_receiver`.

    Raises:
        TypeError: An id is no text.
        LimitExceeded: An id is longer than 128 characters.
        InvalidRequest: A choice is unknown, or the wait is negative.
        InvalidOperation: A session of a dead-letter store: there are none (SES-16).
        SettingNotAvailable: Prefetching, which there is not.
    """
    if not isinstance(session_id, NextAvailableSession):
        check_id(session_id, "session_id")
    check_id(client_identifier, "client_identifier")
    if session_id is not None and sub_queue is not None:
        raise InvalidOperation(
            "A dead-letter store has no sessions; leave out session_id or sub_queue."
        )
    if prefetch_count != 0:
        raise SettingNotAvailable(
            f"There is no prefetching: it holds locks on messages that nobody works on. Leave prefetch_count at 0,"
            f" not {prefetch_count}, and receive more messages at a time.",
            details={"setting": "prefetch_count", "observed": str(prefetch_count)},
        )
    mode = ReceiveMode.parse(receive_mode)
    return ReceiverOptions(
        queue=queue,
        session_id=session_id,
        max_wait_ms=None
        if max_wait_time is None
        else seconds_to_ms(max_wait_time, "max_wait_time"),
        mode=mode,
        sub_queue=None if sub_queue is None else SubQueue.parse(sub_queue),
        client_identifier=client_identifier,
    )


def check_count(count: int) -> None:
    """Refuse a number of messages that no installation would give in one receive.

    Raises:
        TypeError: It is no whole number.
        InvalidRequest: It is less than 1, or more than any installation can allow.
    """
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"max_message_count must be an int, not {type(count).__name__}.")
    if not 1 <= count <= _COUNT_MAX:
        raise InvalidRequest(
            f"max_message_count must be 1 or more, and no more than the server allows, 4096 by default; {count} was"
            " given.",
            details={"observed": str(count)},
        )


class Receiving:
    """Receives from one queue, or from one session of it; `connection` is the client's."""

    def __init__(self, connection: Connection, options: ReceiverOptions) -> None:
        """Be ready; the first call accepts the session, if there is one to accept.

        Args:
            connection: The client's.
            options: Made by `receiver_options`.
        """
        self.connection = connection
        self._opening = threading.Lock()
        self._held: HeldSession | None = None
        self._is_closed = False
        self._holder_name = (
            connection.holder_name
            if options.client_identifier is None
            else options.client_identifier
        )
        self.options = options
        self.entity = options.entity

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called, here or on the client."""
        return self._is_closed or self.connection.is_closed

    @property
    def is_holding(self) -> bool:
        """Whether a session was accepted and not given back."""
        return self._held is not None

    @property
    def held(self) -> HeldSession:
        """The session that is held.

        Raises:
            ClientClosed: The receiver or its client was closed.
            InvalidOperation: There is none.
        """
        self.check_open()
        self.check_held()
        assert self._held is not None
        return self._held

    @property
    def peeked_session(self) -> str | None:
        """Whose messages a look shows: of the session that is held or wanted by name; None = of all."""
        if self._held is not None:
            return self._held.lock.session_id
        wanted = self.options.session_id
        return wanted if isinstance(wanted, str) else None

    @property
    def transport(self) -> Transport:
        """Time, for what keeps locks alive."""
        return self.connection.transport

    def check_held(self) -> None:
        """Refuse to talk of a session where none is held.

        Raises:
            InvalidOperation: There is none: not accepted yet, or a receiver without session.
        """
        if self._held is not None:
            return
        if self.options.session_id is None:
            raise InvalidOperation(
                f"This receiver of '{self.entity}' has no session; get one with session_id."
            )
        raise InvalidOperation(
            f"This receiver of '{self.entity}' holds no session yet; enter it with `with`, or receive once."
        )

    async def open(self) -> HeldSession | None:
        """Accept the session unless it is held already, and return it; None = none is wanted.

        Raises:
            NoSessionAvailable: None became available in time. The normal sign of an idle queue.
            SessionCannotBeLocked: Another receiver holds the session.
            InvalidOperation: The queue has no sessions, or another task is opening this receiver just now.
        """
        self.check_open()
        if self.options.session_id is None or self._held is not None:
            return self._held
        if not self._opening.acquire(blocking=False):
            raise InvalidOperation(
                "This receiver is being opened by another task or thread. Enter it with `with` before sharing it."
            )
        try:
            held = await self._accept(self.options.session_id)
            if self.is_closed:
                await held.release()
                raise ClientClosed("This receiver was closed while it accepted its session.")
            self._held = held
        finally:
            self._opening.release()
        self.connection.add_held(held)
        return held

    def adopt(self, accepted: messaging.AcceptSessionResponse) -> None:
        """Hold a session that a stream accepted, as `open` does."""
        self._held = HeldSession(self.connection, self.entity, accepted)
        self.connection.add_held(self._held)

    async def receive(
        self, count: int, wait_ms: int | None, *, is_first: bool
    ) -> list[ReceivedMessage]:
        """Return up to `count` messages; an empty list when none came in time.

        Args:
            count: As `check_count` lets it pass.
            wait_ms: How long to wait for the first one; None = for ever.
            is_first: The session was accepted for this call. Where the server finds the call itself wrong, by a limit
                that only the server knows, the session is given back, because nobody can be left to do it.

        Raises:
            SessionLockLost: The session's lock is gone.
            LockstepError: As the server says; nothing was received.
        """
        try:
            return await self._receive(count, wait_ms)
        except InvalidRequest:
            if is_first:
                await self._give_back()
            raise

    async def _receive(self, count: int, wait_ms: int | None) -> list[ReceivedMessage]:
        wait = Wait(self.connection.transport, wait_ms)
        while True:
            wait.begin_call()
            try:
                messages = await self._receive_once(count, wait)
            except SessionLockLost as error:
                if self.is_closed:
                    raise ClientClosed("This receiver was closed while it received.") from error
                raise
            except RequestIdExpired:
                # What a receive-and-delete took is gone, so the program must hear of it.
                if self.options.mode is not ReceiveMode.PEEK_LOCK or not wait.outlasted_memory():
                    raise
                continue
            if messages or wait.was_last_call():
                return messages

    async def receive_deferred(
        self, sequence_numbers: int | Sequence[int]
    ) -> list[ReceivedMessage]:
        """Return deferred messages by number, all or none (DEF-2); of a session, while it is held (DEF-5).

        Raises:
            ClientClosed: The receiver or its client was closed.
            MessageNotFound: One of them is not deferred, or somebody has it; none was received.
            LockstepError: As the server says.
        """
        given = [sequence_numbers] if isinstance(sequence_numbers, int) else list(sequence_numbers)
        if not given:
            return []
        held = await self.open()
        request = messaging.ReceiveDeferredMessagesRequest(
            namespace=self.connection.namespace,
            entity=self.entity,
            request_id=self.connection.calls.new_request_id(),
            session=held.lock if held is not None else None,
            sequence_numbers=given,
            mode=_WIRE_MODE[self.options.mode],
        )
        response = await self.connection.calls.call(RECEIVE_DEFERRED_MESSAGES, request)
        return self.read(response, MessageState.DEFERRED)

    async def settle(
        self, messages: Sequence[ReceivedMessage], outcome: messaging.Settlement
    ) -> list[SettlementFailure]:
        """Settle messages in one request; see `settling.settle`.

        Raises:
            ClientClosed: The receiver was closed; no call was made (C25).
            LockstepError: As `settling.settle`.
        """
        self.check_open()
        return await settling.settle(self.connection, self.entity, messages, outcome)

    async def renew_messages(
        self, messages: Sequence[ReceivedMessage], *, budget_ms: int | None = None
    ) -> list[SettlementFailure]:
        """Renew the locks of single messages in one request; see `settling.renew`.

        Raises:
            ClientClosed: The receiver was closed; no call was made.
            LockstepError: As `settling.renew`.
        """
        self.check_open()
        return await settling.renew(self.connection, self.entity, messages, budget_ms=budget_ms)

    async def close(self) -> None:
        """Give the session back at once and refuse further calls. A second close does nothing.

        Raises:
            LockstepError: The server could not be told; the lock runs out by itself.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._held is not None and not self._held.is_released:
            self.connection.remove_held(self._held)
            await self._held.release()

    def check_open(self) -> None:
        """Refuse use after close.

        Raises:
            ClientClosed: The receiver or its client was closed; get another one.
        """
        if self._is_closed:
            raise ClientClosed(f"This receiver of '{self.entity}' was closed; get another one.")
        self.connection.check_open()

    def __del__(self) -> None:
        if self._held is not None and not self._held.is_released:
            self.connection.note_forgotten(self._held)
            warnings.warn(
                f"A receiver that holds session '{self._held.session_id}' of '{self.entity}' was not closed. The"
                " session stays locked until its client is closed, or its lock runs out.",
                ResourceWarning,
                source=self,
                stacklevel=1,
            )

    async def _give_back(self) -> None:
        held, self._held = self._held, None
        if held is None or held.is_released:
            return
        self.connection.remove_held(held)
        try:
            await held.release()
        except LockstepError:
            # The error of the call itself tells the program what to repair; this lock runs out by itself.
            return

    async def _accept(self, wanted: str | NextAvailableSession) -> HeldSession:
        """Accept a session, waiting for the next available one as long as the options say."""
        transport = self.connection.transport
        if not isinstance(wanted, NextAvailableSession):
            return await self._accept_once(wanted, Wait(transport, 0))
        wait = Wait(transport, self.options.max_wait_ms)
        while True:
            wait.begin_call()
            try:
                return await self._accept_once(None, wait)
            except NoSessionAvailable:
                self.check_open()
                if wait.was_last_call():
                    raise
            except RequestIdExpired:
                self.check_open()
                if not wait.outlasted_memory():
                    raise

    async def _accept_once(self, session_id: str | None, wait: Wait) -> HeldSession:
        connection = self.connection
        request = messaging.AcceptSessionRequest(
            namespace=connection.namespace,
            entity=self.entity,
            request_id=connection.calls.new_request_id(),
            session_id=session_id,
            max_wait=ms_to_duration(wait.call_ms),
            holder_client_id=self._holder_name,
        )
        response = await connection.calls.call_or_undo(
            ACCEPT_SESSION,
            request,
            self._undo(request, session_id),
            wait_ms=wait.call_ms,
            patience_ms=wait.left_ms,
        )
        return HeldSession(connection, self.entity, response)

    async def _receive_once(self, count: int, wait: Wait) -> list[ReceivedMessage]:
        self.check_open()
        connection, held = self.connection, self._held
        request = messaging.ReceiveMessagesRequest(
            namespace=connection.namespace,
            entity=self.entity,
            request_id=connection.calls.new_request_id(),
            session=held.lock if held else None,
            max_messages=count,
            max_wait=ms_to_duration(wait.call_ms),
            mode=_WIRE_MODE[self.options.mode],
            receiver_client_id=self._holder_name,
        )
        response = await connection.calls.call_or_undo(
            RECEIVE_MESSAGES,
            request,
            self._undo(request, held.session_id if held else None),
            wait_ms=wait.call_ms,
            patience_ms=wait.left_ms,
        )
        return self.read(response)

    def _undo(
        self,
        request: messaging.AcceptSessionRequest | messaging.ReceiveMessagesRequest,
        session_id: str | None,
    ) -> messaging.CancelRequestRequest:
        return messaging.CancelRequestRequest(
            namespace=request.namespace,
            entity=request.entity,
            request_id=request.request_id,
            session_id=session_id,
        )

    def read(
        self,
        response: messaging.ReceiveMessagesResponse | messaging.ReceiveDeferredMessagesResponse,
        state: MessageState = MessageState.ACTIVE,
    ) -> list[ReceivedMessage]:
        """Turn the columns of a response into messages, and note until when the session is locked."""
        held = self._held
        until_ms = None
        if response.HasField("locked_until"):
            until_ms = timestamp_to_ms(response.locked_until)
            if held is not None:
                held.locked_until_ms = until_ms
        delivery = Delivery(
            self.entity,
            held.lock if held else None,
            response.lock_token_prefix,
            None if held else until_ms,
            state,
        )
        return delivered_messages(response, delivery)
