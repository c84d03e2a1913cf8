"""Asking over a queue and getting the answer over a session, whether the client blocks or not.

Here belong a requester's bookkeeping and how an answer is addressed (SES-54 to SES-56). Never here: the
public classes, what waits for another caller's turn (`aio`, `blocking`). The law: a request is sent only
after the session of its answer was accepted, and each answer is handed to the one who asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from lockstep.client import settling
from lockstep.client.connection import Connection
from lockstep.client.holding import HeldSession
from lockstep.client.message import Message
from lockstep.client.received import ReceivedMessage
from lockstep.client.receiving import ReceiverOptions, Receiving
from lockstep.client.sending import Sending
from lockstep.core.errors import (
    InvalidOperation,
    InvalidRequest,
    LockstepError,
    OperationTimeout,
    SessionLockLost,
)
from lockstep.runtime.ids import IdSource

FOREVER_S: Final = 10 * 365 * 86_400.0
"""How long the session of a requester is renewed: as long as it is open."""
_ANSWERS_MAX: Final = 100


class Turn(Protocol):
    """Lets one of several callers receive for all of them."""

    def count(self) -> int:
        """Return how often a turn was over."""
        ...

    def take(self) -> bool:
        """Take the turn, unless somebody has it."""
        ...

    def pass_on(self) -> None:
        """Be over, and wake those who wait."""
        ...

    async def wait(self, count: int, wait_ms: int) -> None:
        """Wait until more than `count` turns were over, at most `wait_ms`."""
        ...


class Requesting:
    """Sends requests to one queue and gets the answers from one session of another."""

    def __init__(
        self,
        connection: Connection,
        request_queue: str,
        reply: ReceiverOptions,
        ids: IdSource,
        turn: Turn,
        keep: Callable[[Requesting, HeldSession], None],
    ) -> None:
        """Be ready; `open` accepts the session.

        Args:
            connection: The client's.
            request_queue: Where requests go.
            reply: The reply queue and the requester's own session of it.
            ids: Names requests that have no message id.
            turn: Of this requester alone.
            keep: Renews the lock of a session until its receiver is closed.
        """
        self._connection = connection
        self._sending = Sending(connection, request_queue)
        self._reply = reply
        self._ids = ids
        self._turn = turn
        self._keep = keep
        self._receiving = Receiving(connection, reply)
        self._was_opened = False
        # By message id: all and only the requests whose callers wait, with their answers once they came.
        self._answers: dict[str, ReceivedMessage | None] = {}

    @property
    def session_id(self) -> str:
        """The session of the answers."""
        assert isinstance(self._reply.session_id, str)
        return self._reply.session_id

    async def open(self) -> None:
        """Accept the session.

        Raises:
            SessionCannotBeLocked: Somebody holds it: another requester of the same id, or a receiver of the next
                available session, which must not be on a reply queue (SES-56).
            LockstepError: Any other of accepting.
        """
        held = await self._receiving.open()
        assert held is not None
        self._was_opened = True
        self._keep(self, held)

    async def request(self, message: Message, timeout_ms: int) -> ReceivedMessage:
        """Send a message and return its answer, which is removed from the reply queue.

        Args:
            message: The request; where it has no message id, it gets one.
            timeout_ms: How long sending and waiting may take together.

        Raises:
            InvalidOperation: The requester was not entered, or waits for an answer to the same message id already.
            OperationTimeout: No answer came in time; the request may still be worked on.
            LockstepError: As a send, or an accept of the session after it was lost.
        """
        self._receiving.check_open()
        if not self._was_opened:
            raise InvalidOperation(
                "Enter the requester with `async with`, or `with`, before it is used: the session of the answers is"
                " accepted first."
            )
        ends_ms = self._connection.transport.monotonic_ms() + timeout_ms
        request = self._addressed(message)
        key = request.message_id
        assert key is not None
        if key in self._answers:
            raise InvalidOperation(
                f"The requester waits for the answer to message '{key}' already; give each request an id of its own."
            )
        self._answers[key] = None
        try:
            await self._sending.send(
                self._sending.messages_of(request), require_atomic=False, budget_ms=timeout_ms
            )
            return await self._answer_to(key, ends_ms)
        finally:
            del self._answers[key]

    async def close(self) -> None:
        """Give the session back; what comes later stays in the reply queue. A second close does nothing."""
        self._sending.close()
        await self._receiving.close()

    def _addressed(self, message: Message) -> Message:
        if not isinstance(message, Message):
            raise TypeError(f"A request is a Message, not {type(message).__name__}.")
        request = Message.from_received(message)
        wire = request._wire
        wire.message_id = wire.message_id or self._ids.uid()
        wire.reply_to = self._reply.queue
        wire.reply_to_session_id = self.session_id
        return request

    async def _answer_to(self, key: str, ends_ms: int) -> ReceivedMessage:
        """Wait for an answer; whoever has the turn receives for all who wait."""
        while True:
            count = self._turn.count()
            answer = self._answers[key]
            if answer is not None:
                return answer
            left_ms = ends_ms - self._connection.transport.monotonic_ms()
            if left_ms <= 0:
                raise OperationTimeout(
                    f"No answer to message '{key}' came to session '{self.session_id}' of queue '{self._reply.queue}'"
                    " in time. The request may still be worked on; an answer that comes later is thrown away."
                )
            if not self._turn.take():
                await self._turn.wait(count, left_ms)
                continue
            try:
                await self._receive(left_ms)
            finally:
                self._turn.pass_on()

    async def _receive(self, wait_ms: int) -> None:
        """Receive what there is, keep what somebody waits for, and remove all of it from the queue."""
        if not self._receiving.is_holding:
            await self.open()
        try:
            messages = await self._receiving.receive(_ANSWERS_MAX, wait_ms, is_first=False)
        except SessionLockLost:
            # The answers are still in the queue, and the session is nobody else's: it is taken again.
            await self._receiving._give_back()
            return
        for message in messages:
            key = message.correlation_id
            if key is not None and key in self._answers:
                self._answers[key] = message
        try:
            await self._receiving.settle(messages, settling.COMPLETE)
        except LockstepError:
            # They are in hand. What is still in the queue comes again after the next accept, where nobody waits for
            # it, and is removed then.
            return


def reply_of(received: ReceivedMessage, message: Message) -> tuple[str, Message]:
    """Return where the answer to a received message goes, and a copy of it that is addressed to who asked.

    Args:
        received: The request.
        message: The answer.

    Raises:
        TypeError: One of them is no such message.
        InvalidRequest: The request does not say where an answer should go.
    """
    for given, kind in ((received, ReceivedMessage), (message, Message)):
        if not isinstance(given, kind):
            raise TypeError(
                f"reply_to takes the received request and a Message, not {type(given).__name__}."
            )
    queue = received.reply_to
    if queue is None:
        raise InvalidRequest(
            f"Message {received.sequence_number} has no reply_to: whoever sent it expects no answer."
        )
    answer = Message.from_received(message)
    wire = answer._wire
    if not wire.correlation_id:
        wire.correlation_id = received.message_id or received.correlation_id or ""
    session_id = received.reply_to_session_id
    if session_id is not None:
        wire.session_id = session_id
        wire.ClearField("partition_key")
    return queue, answer


def ignore_loss(renewable: object, error: LockstepError) -> None:
    """Leave it to the next receive, which finds out and accepts the session again."""
