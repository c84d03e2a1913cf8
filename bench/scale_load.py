"""The loads of the scale benchmark: a backlog that stands, and the life of messages in front of it.

Here belongs what is sent and received, and what must be found true. Never here: figures (`measure`, `watched`), or the
order of things (`scale`). The laws: Lockstep and the anchor get calls of one shape; every received message was sent, in
a session that nobody else held, behind all that came from the session before.

The shape: one send of 100 messages, ten for each of ten sessions, then ten times a receive of ten messages.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from bench import measure
from bench.ledger import Violation
from lockstep.core.ids import EntityKey
from lockstep.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    entity_pb2,
    message_pb2,
    request_pb2,
    session_pb2,
)
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.v1 import messaging_service_pb2_grpc as messaging_grpc

NAMESPACE = "default"
QUEUE = "scale"
KEY = EntityKey(NAMESPACE, QUEUE)
ENTITY = "anchor"
SESSIONS_IN_SEND = 10
OF_SESSION = 10
SEND = SESSIONS_IN_SEND * OF_SESSION
QUEUE_MEGABYTES = 8192
CALL_SECONDS_MAX = 60.0
ACCEPT_SECONDS_MAX = 30
FILLERS = 64
CHANNEL_OPTIONS = (("grpc.max_receive_message_length", -1),)

Progress = Callable[[int], None]
"""Told how many are done so far."""


@dataclass(slots=True)
class Book:
    """What was sent and received.

    Attributes:
        last: The last sequence number that was received from each session.
        held: For each session 1 while a receiver of ours holds it.
        sent: Messages that were stored.
        completed: Messages that were completed.
    """

    last: array[int]
    held: bytearray
    sent: int = 0
    completed: int = 0

    @property
    def backlog(self) -> int:
        """Messages that are stored."""
        return self.sent - self.completed

    def accepted(self, session: int) -> None:
        """Note that a receiver holds a session.

        Raises:
            Violation: EXCLUSIVITY, when another receiver holds it.
        """
        if self.held[session]:
            raise Violation("EXCLUSIVITY", f"session {session} was granted while it was held")
        self.held[session] = 1

    def received(self, session: int, sequences: Sequence[int]) -> None:
        """Check what was delivered.

        Raises:
            Violation: ORDER, when a message is not younger than the one before it; LOSS, when there is none.
        """
        if not sequences:
            raise Violation("LOSS", f"session {session} was granted as runnable and had no message")
        last = self.last[session]
        for sequence in sequences:
            if sequence <= last:
                raise Violation("ORDER", f"session {session}: {sequence} came behind {last}")
            last = sequence
        self.last[session] = last


@dataclass(slots=True)
class Lockstep:
    """Sends to and receives from one session queue, over one channel, without a client in between.

    Attributes:
        channel: The connection.
        client_id: Names this client in its request ids; a new one for each connection.
        sessions: Messages go to so many sessions in turn.
        body_bytes: Length of a body.
        book: What was sent and received.
    """

    channel: grpc.aio.Channel
    client_id: str
    sessions: int
    body_bytes: int
    book: Book
    _counter: int = 0
    _next_session: int = 0
    _stub: Any = field(init=False)
    _admin: Any = field(init=False)

    def __post_init__(self) -> None:
        self._stub = messaging_grpc.MessagingServiceStub(self.channel)
        self._admin = admin_service_pb2_grpc.AdminServiceStub(self.channel)

    def _request_id(self) -> request_pb2.RequestId:
        self._counter += 1
        return request_pb2.RequestId(client_id=self.client_id, counter=self._counter)

    # --- the queue -------------------------------------------------------------------------------

    async def create_queue(self) -> None:
        """Make the queue, large enough."""
        settings = entity_pb2.QueueSettings(
            requires_session=True, max_size_in_megabytes=QUEUE_MEGABYTES
        )
        await self._admin.CreateQueue(
            admin_service_pb2.CreateQueueRequest(
                namespace=NAMESPACE, name=QUEUE, settings=settings
            ),
            timeout=CALL_SECONDS_MAX,
        )

    async def check_stored(self) -> None:
        """Ask the broker how many messages it holds.

        Raises:
            Violation: LOSS or DUPLICATE, when it is not as many as the book says.
        """
        reply = await self._admin.GetQueue(
            admin_service_pb2.GetQueueRequest(namespace=NAMESPACE, name=QUEUE),
            timeout=CALL_SECONDS_MAX,
        )
        stored, due = reply.runtime.total_messages, self.book.backlog
        if stored != due:
            promise = "LOSS" if stored < due else "DUPLICATE"
            raise Violation(
                promise, f"{stored} messages are stored, {due} were sent and not completed"
            )

    # --- filling ---------------------------------------------------------------------------------

    async def fill(self, backlog: int, progress: Progress) -> None:
        """Send until so many messages are stored."""
        missing = max(0, backlog - self.book.backlog)
        await _in_parallel(range(-(-missing // SEND)), lambda _: self._send(), progress)

    # --- the cycle -------------------------------------------------------------------------------

    async def cycle(self, _: measure.Latencies, __: float) -> int:
        """Do the shape once; the sessions that are received are those that the broker hands out next."""
        await self._send()
        return sum([await self._consume() for _ in range(SESSIONS_IN_SEND)])

    async def _send(self) -> None:
        request = messaging.SendMessagesRequest(
            namespace=NAMESPACE, entity=QUEUE, request_id=self._request_id()
        )
        first, body = self._next_session, bytes(self.body_bytes)
        self._next_session = (first + SESSIONS_IN_SEND) % self.sessions
        for number in range(first, first + SESSIONS_IN_SEND):
            session_id = f"session-{number % self.sessions}"
            for _ in range(OF_SESSION):
                request.messages.append(message_pb2.Message(session_id=session_id, body=body))
        await self._stub.SendMessages(request, timeout=CALL_SECONDS_MAX)
        self.book.sent += SEND

    async def _consume(self) -> int:
        accepted = await self._accept(None)
        session = int(accepted.session.session_id.removeprefix("session-"))
        self.book.accepted(session)
        reply = await self._stub.ReceiveMessages(
            messaging.ReceiveMessagesRequest(
                namespace=NAMESPACE,
                entity=QUEUE,
                request_id=self._request_id(),
                session=accepted.session,
                max_messages=OF_SESSION,
            ),
            timeout=CALL_SECONDS_MAX,
        )
        self.book.received(session, reply.sequence_numbers)
        settlement = messaging.Settlement(
            complete=messaging.Complete(), sequence_numbers=reply.sequence_numbers
        )
        settled = await self._stub.SettleMessages(
            messaging.SettleMessagesRequest(
                namespace=NAMESPACE,
                entity=QUEUE,
                request_id=self._request_id(),
                session=accepted.session,
                settlements=[settlement],
            ),
            timeout=CALL_SECONDS_MAX,
        )
        for failure in settled.failures:
            raise Violation("LOCK", f"complete was refused under a held lock: {failure.reason}")
        self.book.completed += len(reply.sequence_numbers)
        self.book.held[session] = 0  # another may hold it before the reply comes
        await self._release(accepted.session)
        return len(reply.sequence_numbers)

    async def _accept(self, session_id: str | None) -> Any:
        return await self._stub.AcceptSession(
            messaging.AcceptSessionRequest(
                namespace=NAMESPACE,
                entity=QUEUE,
                request_id=self._request_id(),
                session_id=session_id,
                max_wait=Duration(seconds=ACCEPT_SECONDS_MAX),
                holder_client_id=self.client_id,
            ),
            timeout=CALL_SECONDS_MAX,
        )

    async def _release(self, session: session_pb2.SessionLock) -> None:
        await self._stub.ReleaseSession(
            messaging.ReleaseSessionRequest(
                namespace=NAMESPACE, entity=QUEUE, request_id=self._request_id(), session=session
            ),
            timeout=CALL_SECONDS_MAX,
        )


class Anchor:
    """The same shape of calls, as far as the anchor has them."""

    def __init__(self, channel: grpc.aio.Channel, body_bytes: int) -> None:
        self._stub: Any = messaging_grpc.MessagingServiceStub(channel)
        self._body = bytes(body_bytes)

    async def cycle(self, _: measure.Latencies, __: float) -> int:
        """Send 100 messages; receive and complete ten times ten."""
        request = messaging.SendMessagesRequest(entity=ENTITY)
        for _number in range(SEND):
            request.messages.append(message_pb2.Message(session_id="session-0001", body=self._body))
        await self._stub.SendMessages(request, timeout=CALL_SECONDS_MAX)
        return sum([await self._consume() for _ in range(SESSIONS_IN_SEND)])

    async def _consume(self) -> int:
        reply = await self._stub.ReceiveMessages(
            messaging.ReceiveMessagesRequest(entity=ENTITY, max_messages=OF_SESSION),
            timeout=CALL_SECONDS_MAX,
        )
        settlement = messaging.Settlement(
            complete=messaging.Complete(), sequence_numbers=reply.sequence_numbers
        )
        await self._stub.SettleMessages(
            messaging.SettleMessagesRequest(entity=ENTITY, settlements=[settlement]),
            timeout=CALL_SECONDS_MAX,
        )
        return len(reply.sequence_numbers)


def new_book(sessions: int) -> Book:
    """Begin with nothing sent."""
    return Book(array("q", bytes(8 * sessions)), bytearray(sessions))


async def _in_parallel(
    numbers: Iterable[int], job: Callable[[int], Any], progress: Progress
) -> None:
    left = iter(numbers)
    done = 0

    async def work() -> None:
        nonlocal done
        for number in left:
            await job(number)
            done += 1
            progress(done)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(FILLERS):
            tasks.create_task(work())


# --- from outside -----------------------------------------------------------------------------------------


def probe(address_and_seconds: tuple[str, float]) -> measure.Figures:
    """Call a server with small calls, one at a time, from a process of its own, and tell how long they took.

    `health` asks the event loop only, `session` asks a session, so it waits for the commit under way. `control` is how
    late this process itself was to wake from its pauses: no call can be known better than that.
    """
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    address, seconds = address_and_seconds
    latencies = measure.Latencies()
    pause = 0.003
    with grpc.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        admin = admin_service_pb2_grpc.AdminServiceStub(channel)
        asked = admin_service_pb2.GetSessionRequest(
            namespace=NAMESPACE, queue=QUEUE, session_id="idle-0"
        )
        health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS_MAX)
        ends_at = time.perf_counter() + seconds
        is_over = False
        while not is_over:
            started = time.perf_counter()
            health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS_MAX)
            asked_at = time.perf_counter()
            admin.GetSession(asked, timeout=CALL_SECONDS_MAX)
            answered_at = time.perf_counter()
            latencies.record("health", asked_at - started)
            latencies.record("session", answered_at - asked_at)
            time.sleep(pause)
            latencies.record("control", time.perf_counter() - answered_at - pause)
            is_over = time.perf_counter() >= ends_at
    return latencies.figures("probe")
