"""The blocking receiver.

Here belongs its public shape. Never here: how receiving works (`receiving`, `settling`). The law:
nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from lockstep.client import settling
from lockstep.client.blocking.renewer import AutoLockRenewer
from lockstep.client.blocking.session import Session
from lockstep.client.browsing import Browsing
from lockstep.client.connection import Connection
from lockstep.client.message import Message
from lockstep.client.received import ReceivedMessage, SettlementFailure
from lockstep.client.receiving import (
    RECEIVE_WAIT_MS,
    ReceiverOptions,
    Receiving,
    check_count,
)
from lockstep.client.renewal import check_renewable
from lockstep.client.transport import run_to_completion
from lockstep.client.turning import KEEP_STATE, KeepState, TurnResult, commit_turn
from lockstep.client.values import seconds_to_ms


class QueueReceiver:
    """Receives from one queue, or one session of it. Made by `LockstepClient.get_queue_receiver`.

    Entering it with `with`, or its first call, accepts the session; leaving it gives the
    session back at once. Iterating gives one message at a time, until none came for `max_wait_time`.
    """

    def __init__(
        self, connection: Connection, options: ReceiverOptions, renewer: AutoLockRenewer | None
    ) -> None:
        if renewer is not None:
            check_renewable(options.mode)
        self._renewer = renewer
        self._session: Session | None = None
        self._receiving = Receiving(connection, options)
        self._browsing = Browsing(connection, options.entity)

    @property
    def peek_cursor(self) -> str:
        """Where the next look goes on, opaque; "" = no look was made yet. Another receiver can go on there."""
        return self._browsing.cursor

    @property
    def session(self) -> Session:
        """The held session.

        Raises:
            InvalidOperation: There is none: not accepted yet, or a receiver without session.
        """
        self._receiving.check_held()
        assert self._session is not None
        return self._session

    def receive_messages(
        self, max_message_count: int = 1, max_wait_time: float | None = None
    ) -> list[ReceivedMessage]:
        """Return up to `max_message_count` messages; an empty list when none came in time.

        Fewer than asked for is normal. Interrupting the call (Ctrl-C) loses nothing: what was on its
        way is given back, uncounted (BAT-9).

        Args:
            max_message_count: At most so many, from 1 to the limit of the installation, 4096 by default.
            max_wait_time: Seconds to wait for the first message; 0 = do not wait; None = as the receiver
                was told, else 60.

        Raises:
            TypeError, InvalidRequest: An argument is wrong; a session that only this call accepted is given back.
            SessionLockLost: The session's lock is gone; get another receiver.
            EntityNotFound: There is no such queue.
            InvalidOperation: A session queue without session, or the reverse.
            LockstepError: Any other, those of accepting the session included.
        """
        wait_ms = self._receiving.options.max_wait_ms
        if max_wait_time is not None:
            wait_ms = seconds_to_ms(max_wait_time, "max_wait_time")
        return self._receive(max_message_count, RECEIVE_WAIT_MS if wait_ms is None else wait_ms)

    def peek_messages(
        self,
        max_message_count: int = 1,
        *,
        sequence_number: int | None = None,
        session_id: str | None = None,
        dead_letter_reason: str | None = None,
        cursor: str | None = None,
    ) -> list[ReceivedMessage]:
        """Return messages without locking them, oldest first; an empty list at the end (PEK-1, PEK-3).

        Also those that are locked or scheduled, and of a session queue those of all sessions, unless this receiver
        holds one. Each look goes on where the last one ended. What is returned cannot be settled.

        Args:
            max_message_count: At most so many; fewer is normal.
            sequence_number: Look from this number on; None = from where the last look ended. Across the sessions of
                a queue that is spread over partitions, numbers say nothing of the order; use `cursor` there.
            session_id: Only messages of this session, of dead letters those that were in it; None = of the session
                that this receiver is for, if it is for one.
            dead_letter_reason: Only dead letters with exactly this reason; None = all.
            cursor: Look from where another look ended: the `peek_cursor` of its receiver.

        Raises:
            TypeError, InvalidRequest: An argument is wrong.
            LockstepError: As the server says.
        """
        chosen = self._receiving.peeked_session if session_id is None else session_id
        return run_to_completion(
            self._browsing.peek(
                max_message_count, sequence_number, chosen, dead_letter_reason, cursor
            )
        )

    def complete_messages(self, messages: Sequence[ReceivedMessage]) -> list[SettlementFailure]:
        """Remove messages for good, in one request, and return those that were not (empty = all were).

        Raises:
            ClientClosed, MessageAlreadySettled, InvalidOperation: Found here; no call was made.
            SessionLockLost: The session's lock is gone; they come again.
        """
        return run_to_completion(self._receiving.settle(messages, settling.COMPLETE))

    def abandon_messages(
        self,
        messages: Sequence[ReceivedMessage],
        *,
        properties: settling.Properties | None = None,
        delay: timedelta | None = None,
    ) -> list[SettlementFailure]:
        """Put messages back in their place, delivery count + 1; see `complete_messages`.

        Args:
            messages: The messages.
            properties: Application properties to set on them (MSG-8).
            delay: Have them delivered again only after this time, at most 7 days (ADD-6). In a session nothing
                younger is delivered before; in a plain queue the others go ahead.
        """
        outcome = settling.abandon(properties, delay)
        return run_to_completion(self._receiving.settle(messages, outcome))

    def release_messages(self, messages: Sequence[ReceivedMessage]) -> list[SettlementFailure]:
        """Put messages back in their place, delivery count unchanged; see `complete_messages`."""
        return run_to_completion(self._receiving.settle(messages, settling.RELEASE))

    def receive_deferred_messages(
        self, sequence_numbers: int | Sequence[int]
    ) -> list[ReceivedMessage]:
        """Return deferred messages by their sequence numbers, all of them or none (DEF-2).

        They are locked as others are, and can be settled, deferred again included. A session receiver gets those of
        its session only.

        Raises:
            MessageNotFound: One of them is not deferred, or somebody has it; none was received.
            SessionLockLost: The session's lock is gone.
            LockstepError: Any other.
        """
        return run_to_completion(self._receiving.receive_deferred(sequence_numbers))

    def defer_messages(
        self,
        messages: Sequence[ReceivedMessage],
        *,
        properties: settling.Properties | None = None,
    ) -> list[SettlementFailure]:
        """Set messages aside, in one request, and return those that were not (empty = all were).

        They are delivered only to who asks for them by sequence number (DEF-1), so keep the numbers; the session
        state is a good place. Each counts as a delivery without success (DCN-2).

        Args:
            messages: The messages.
            properties: Application properties to set on them (MSG-8).

        Raises:
            ClientClosed, MessageAlreadySettled, InvalidOperation: Found here; no call was made.
            SessionLockLost: The session's lock is gone; they come again.
        """
        return run_to_completion(self._receiving.settle(messages, settling.defer(properties)))

    def dead_letter_messages(
        self,
        messages: Sequence[ReceivedMessage],
        *,
        reason: str | None = None,
        error_description: str | None = None,
        properties: settling.Properties | None = None,
    ) -> list[SettlementFailure]:
        """Move messages to the dead-letter store; see `complete_messages`.

        Args:
            messages: The messages.
            reason: Why, at most 4096 characters.
            error_description: In more words, at most 4096 characters.
            properties: Application properties to set on them (MSG-8).
        """
        outcome = settling.dead_letter(reason, error_description, properties)
        return run_to_completion(self._receiving.settle(messages, outcome))

    def complete_message(self, message: ReceivedMessage) -> None:
        """Remove a message for good.

        Raises:
            ClientClosed, MessageAlreadySettled, InvalidOperation: Found here; no call was made.
            MessageLockLost, SessionLockLost: The lock is gone; the message comes again.
        """
        settling.raise_first(self.complete_messages([message]))

    def abandon_message(
        self,
        message: ReceivedMessage,
        *,
        properties: settling.Properties | None = None,
        delay: timedelta | None = None,
    ) -> None:
        """Put a message back in its place, delivery count + 1; see `complete_message` and `abandon_messages`."""
        settling.raise_first(self.abandon_messages([message], properties=properties, delay=delay))

    def defer_message(
        self, message: ReceivedMessage, *, properties: settling.Properties | None = None
    ) -> None:
        """Set a message aside; see `complete_message` and `defer_messages`."""
        settling.raise_first(self.defer_messages([message], properties=properties))

    def release_message(self, message: ReceivedMessage) -> None:
        """Put a message back in its place, delivery count unchanged; see `complete_message`."""
        settling.raise_first(self.release_messages([message]))

    def dead_letter_message(
        self,
        message: ReceivedMessage,
        *,
        reason: str | None = None,
        error_description: str | None = None,
        properties: settling.Properties | None = None,
    ) -> None:
        """Move a message to the dead-letter store; see `complete_message` and `dead_letter_messages`."""
        settling.raise_first(
            self.dead_letter_messages(
                [message],
                reason=reason,
                error_description=error_description,
                properties=properties,
            )
        )

    def commit_turn(
        self,
        *,
        complete: Sequence[ReceivedMessage] = (),
        send: Sequence[Message] = (),
        state: bytes | str | KeepState | None = KEEP_STATE,
        if_version: int | None = None,
    ) -> TurnResult:
        """Complete messages, send messages and set the state of the held session, in one commit (ADD-8).

        All of it happens, or nothing: whoever gets the session next finds either the turn or what was before it.

        Args:
            complete: Messages of the session that are done.
            send: Messages for the same queue, to this session or others.
            state: Text is stored as UTF-8; None clears the state; KEEP_STATE leaves it as it is.
            if_version: Only if this is the version of the state, 0 = never set (ADD-7).

        Raises:
            ClientClosed, MessageAlreadySettled, InvalidOperation: Found here; no call was made.
            MessageLockLost, SessionLockLost: A message, or the session, is not held any more; nothing was done.
            StateConflict: The state has another version; nothing was done.
            MessageSizeExceeded, QuotaExceeded: Nothing was done.
            LockstepError: Any other.
        """
        return run_to_completion(commit_turn(self._receiving, complete, send, state, if_version))

    def renew_message_lock(self, message: ReceivedMessage) -> datetime:
        """Move the lock of a message to now + lock duration and return until when it is held.

        Raises:
            TypeError: In a session the session's lock governs; use `session.renew_lock` (C19).
            ClientClosed, MessageAlreadySettled, InvalidOperation: Found here; no call was made.
            MessageLockLost: The lock is gone; an expired one is never revived.
        """
        settling.raise_first(run_to_completion(self._receiving.renew_messages([message])))
        until = message.locked_until_utc
        assert until is not None
        return until

    def close(self) -> None:
        """Give the session back at once and refuse further calls. A second close does nothing.

        Raises:
            LockstepError: The server could not be told within 5 s; the lock runs out by itself.
        """
        run_to_completion(self._receiving.close())

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ReceivedMessage:
        messages = self._receive(1, self._receiving.options.max_wait_ms)
        if not messages:
            raise StopIteration
        return messages[0]

    def _receive(self, count: int, wait_ms: int | None) -> list[ReceivedMessage]:
        check_count(count)
        is_first = not self._receiving.is_holding
        self._open()
        messages = run_to_completion(self._receiving.receive(count, wait_ms, is_first=is_first))
        if messages and self._renewer is not None and self._session is None:
            self._renewer.register(self, messages)
        return messages

    def _open(self) -> None:
        if self._renewer is not None:
            self._renewer.check_running()  # before anything is locked that nobody would renew
        held = run_to_completion(self._receiving.open())
        if held is not None and (self._session is None or self._session._held is not held):
            self._session = Session(held)
            if self._renewer is not None:
                self._renewer.register(self, self._session)
