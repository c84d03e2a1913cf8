"""The load on Lockstep: the life of messages in sessions, through the Python client, checked as it runs.

Here belongs what a worker does and what it must find. Never here: clocks and percentiles (`measure`), which runs
there are (`lifecycle`). The law: every message that is counted was sent, received in its place under a lock that
nobody else held, and completed.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from bench import measure
from bench.ledger import Ledger, Violation
from lockstep import NEXT_AVAILABLE_SESSION, Message, ReceivedMessage
from lockstep.aio import LockstepClient, QueueReceiver
from lockstep.core.errors import NoSessionAvailable
from lockstep.v1 import admin_service_pb2, admin_service_pb2_grpc, entity_pb2

NAMESPACE = "default"
QUEUE = "bench"
ADMIN_SECONDS_MAX = 10.0
ACCEPT_SECONDS_MAX = 30.0
RECEIVE_SECONDS_MAX = 5.0
DRAIN_SECONDS_MAX = 60.0
HAND_OFFS = 100
HAND_OFF_PAUSE_SECONDS = 0.01
STAMP = struct.Struct(">IQ")
"""How a body begins: the session, and the message's number in it."""


class SessionLoad:
    """Sends to the sessions in turn and receives from whichever is available."""

    def __init__(self, client: LockstepClient, run: measure.Run) -> None:
        self._client = client
        self._sender = client.get_queue_sender(QUEUE)
        self._batch = run.batch
        self._workers = run.workers
        self._padding = bytes(max(0, run.body_bytes - STAMP.size))
        self._ledger = Ledger(run.sessions)
        # Each session in it has no send under way, so that the order of its messages is defined.
        self._idle: asyncio.Queue[int] = asyncio.Queue()
        for session in range(run.sessions):
            self._idle.put_nowait(session)

    async def cycle(self, latencies: measure.Latencies, due: float) -> int:
        """Send a batch to the next session; accept the next available one, receive, complete, close."""
        session = await self._idle.get()
        await self._send(session, self._batch)
        self._idle.put_nowait(session)
        sent = time.perf_counter()
        latencies.record("send", sent - due)
        return await self._consume(latencies, sent)

    async def _send(self, session: int, count: int) -> None:
        session_id = f"session-{session}"
        messages = [
            Message(STAMP.pack(session, number) + self._padding, session_id=session_id)
            for number in self._ledger.number(session, count)
        ]
        await self._sender.send_messages(messages)

    async def _consume(self, latencies: measure.Latencies, started: float) -> int:
        async with self._accept() as receiver:
            accepted = time.perf_counter()
            session = session_number(receiver.session.session_id)
            grant = self._ledger.accepted(session)
            messages = await receiver.receive_messages(
                max_message_count=self._batch, max_wait_time=RECEIVE_SECONDS_MAX
            )
            received = time.perf_counter()
            self._ledger.received(session, grant, message_numbers(session, messages))
            await complete(receiver, messages)
            completed = time.perf_counter()
            self._ledger.releasing(session)
        latencies.record("accept", accepted - started)
        latencies.record("receive", received - accepted)
        latencies.record("complete", completed - received)
        latencies.record("close", time.perf_counter() - completed)
        return len(messages)

    @asynccontextmanager
    async def _accept(self) -> AsyncIterator[QueueReceiver]:
        """Hold the next available session. There always is one, because workers send before they accept."""
        try:
            async with self._client.get_queue_receiver(
                QUEUE, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=ACCEPT_SECONDS_MAX
            ) as receiver:
                yield receiver
        except NoSessionAvailable as error:
            waiting = self._ledger.outstanding
            raise Violation(
                "LOSS",
                f"no session came in {ACCEPT_SECONDS_MAX} s, with {waiting} messages not received",
            ) from error

    async def hand_offs(self) -> measure.Latencies:
        """Measure how long a session with messages takes from one holder to a worker that waits for it.

        All workers want the only session with messages; its holder takes one message, keeps the session long enough
        for the others to be waiting, and closes. The time runs from the call of close to the end of the accept.
        """
        latencies = measure.Latencies()
        session, seen, closing_at = 0, 0, 0.0
        # One for each hand-off, then one for each worker that is still waiting.
        await self._send(session, HAND_OFFS + self._workers)

        async def work() -> None:
            nonlocal seen, closing_at
            while seen < HAND_OFFS:
                async with self._accept() as receiver:
                    if 0 < seen < HAND_OFFS:
                        latencies.record("accept", time.perf_counter() - closing_at)
                    seen += 1
                    grant = self._ledger.accepted(session)
                    messages = await receiver.receive_messages(
                        max_message_count=1, max_wait_time=RECEIVE_SECONDS_MAX
                    )
                    self._ledger.received(session, grant, message_numbers(session, messages))
                    await complete(receiver, messages)
                    await asyncio.sleep(HAND_OFF_PAUSE_SECONDS)
                    self._ledger.releasing(session)
                    closing_at = time.perf_counter()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._workers):
                tasks.create_task(work())
        return latencies

    async def drain(self) -> None:
        """Receive what is left and find nothing lost.

        Raises:
            Violation: LOSS, when messages that were sent do not come.
        """
        try:
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                while self._ledger.outstanding:
                    await self._consume(measure.Latencies(), time.perf_counter())
        except TimeoutError:
            self._ledger.check_nothing_lost()
            raise


async def complete(receiver: QueueReceiver, messages: Sequence[ReceivedMessage]) -> None:
    """Complete messages under a lock that is held.

    Raises:
        Violation: LOCK, when the broker refuses one.
    """
    for failure in await receiver.complete_messages(messages):
        raise Violation("LOCK", f"complete was refused under a held lock: {failure.reason}")


def session_number(session_id: str) -> int:
    """Return which of our sessions an id names."""
    return int(session_id.removeprefix("session-"))


def message_numbers(session: int, messages: Sequence[ReceivedMessage]) -> list[int]:
    """Return the numbers of messages that were received from a session.

    Raises:
        Violation: EXCLUSIVITY, when one belongs to another session.
    """
    stamps = [STAMP.unpack_from(message.body or b"") for message in messages]
    for stamped, number in stamps:
        if stamped != session:
            raise Violation(
                "EXCLUSIVITY", f"session {session} delivered {number} of session {stamped}"
            )
    return [number for _, number in stamps]


async def create_queue(channel: grpc.aio.Channel) -> None:
    """Make the session queue with the settings that a queue has when nobody chooses any."""
    stub = admin_service_pb2_grpc.AdminServiceStub(channel)
    settings = entity_pb2.QueueSettings(requires_session=True)
    await stub.CreateQueue(
        admin_service_pb2.CreateQueueRequest(namespace=NAMESPACE, name=QUEUE, settings=settings),
        wait_for_ready=True,
        timeout=ADMIN_SECONDS_MAX,
    )


async def check_empty(channel: grpc.aio.Channel) -> None:
    """Ask the broker what the queue still holds, after all of it was completed.

    Raises:
        Violation: DUPLICATE, when there is something that would be delivered again.
    """
    stub = admin_service_pb2_grpc.AdminServiceStub(channel)
    reply = await stub.GetQueue(
        admin_service_pb2.GetQueueRequest(namespace=NAMESPACE, name=QUEUE),
        timeout=ADMIN_SECONDS_MAX,
    )
    if left := reply.runtime.total_messages:
        raise Violation("DUPLICATE", f"{left} messages are still stored after all were completed")


async def drive(run: measure.Run) -> measure.Figures:
    """Do the job of a run, then look for what was lost and what is too much."""
    async with (
        grpc.aio.insecure_channel(run.address) as channel,
        LockstepClient(run.address, namespace=NAMESPACE) as client,
    ):
        await create_queue(channel)
        load = SessionLoad(client, run)
        figures = await measure.job_figures(load.cycle, run)
        await load.drain()
        if run.job == measure.CALM:
            figures |= (await load.hand_offs()).figures("hand_off")
            await load.drain()
        await check_empty(channel)
        return figures
