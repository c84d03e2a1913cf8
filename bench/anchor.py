"""The yardstick: the least that any durable queue over gRPC in Python must do, done as fast as we know how.

A bare grpc.aio server stores each message as one SQLite row, synced before the reply, hands messages out oldest
first and deletes them on complete. No sessions, locks, retries or rules belong here, and no limit of memory: bodies
that wait are kept in it as well. What Lockstep costs beyond this is what its promises cost. It answers three calls
of lockstep.v1.MessagingService, so the generated stub drives it.

    python -m bench.lifecycle --only anchor     measures it
    python -m bench.anchor PORT DATA_DIR        runs the server alone
"""

from __future__ import annotations

import asyncio
import functools
import gc
import queue
import signal
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bench import measure
from lockstep.internal.v1 import views_pb2
from lockstep.v1 import message_pb2, messaging_service_pb2, messaging_service_pb2_grpc

SERVICE = "lockstep.v1.MessagingService"
ENTITY = "anchor"
RANGES_MAX = 400
# Pages of 16 KiB hold 15 messages of 1 KiB; they were the fastest of 4, 16 and 32 KiB. Debian builds SQLite with
# secure_delete on, which overwrites what is deleted; that is no part of being durable.
PRAGMAS = """
    PRAGMA page_size = 16384;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA secure_delete = OFF;
    PRAGMA cache_size = -65536;
    CREATE TABLE IF NOT EXISTS message (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""

Row = tuple[int, bytes]


@functools.lru_cache(maxsize=512)
def insert_statement(rows: int) -> str:
    """Return one statement for all rows: executemany gives the interpreter lock away at every row."""
    return "INSERT INTO message (id, body) VALUES " + ",".join(["(?,?)"] * rows)


@functools.lru_cache(maxsize=512)
def delete_statement(ranges: int) -> str:
    """Return one statement for all ranges of ids."""
    return "DELETE FROM message WHERE " + " OR ".join(["id BETWEEN ? AND ?"] * ranges)


def as_ranges(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Join ids to ranges without gaps, first and last included."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(ids):
        if ranges and number <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


@dataclass(slots=True)
class Group:
    """What one commit makes durable, and the calls that wait for it."""

    rows: list[Row] = field(default_factory=list)
    done_ids: list[int] = field(default_factory=list)
    callers: list[asyncio.Future[None]] = field(default_factory=list)


class Store:
    """The rows, in one file with one thread. Calls that come while a commit runs share the next one."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        """Opens or makes the file and hands out again what was not completed before."""
        self._loop = loop
        self._connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        self._connection.executescript(PRAGMAS)
        rows = self._connection.execute("SELECT id, body FROM message ORDER BY id").fetchall()
        self._ready: deque[Row] = deque(rows)
        self._next_id = rows[-1][0] + 1 if rows else 1
        self._gathering = Group()
        self._committing = False
        self._work: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sqlite")
        self._thread.start()

    async def add(self, bodies: Sequence[bytes]) -> range:
        """Store messages; returns their ids once they are synced."""
        ids = range(self._next_id, self._next_id + len(bodies))
        self._next_id = ids.stop
        self._gathering.rows.extend(zip(ids, bodies, strict=True))
        await self._next_commit()
        return ids

    async def remove(self, ids: Sequence[int]) -> None:
        """Delete messages; returns once that is synced."""
        self._gathering.done_ids.extend(ids)
        await self._next_commit()

    def take(self, count: int) -> list[Row]:
        """Hand out up to count stored messages, oldest first, each once."""
        return [self._ready.popleft() for _ in range(min(count, len(self._ready)))]

    def close(self) -> None:
        """Finish what was begun and closes the file."""
        self._work.put(None)
        self._thread.join()
        self._connection.close()

    def _next_commit(self) -> asyncio.Future[None]:
        caller = self._loop.create_future()
        self._gathering.callers.append(caller)
        if not self._committing:
            self._committing = True
            self._loop.call_soon(self._commit)  # calls that arrived together are committed together
        return caller

    def _commit(self) -> None:
        group, self._gathering = self._gathering, Group()
        self._work.put(group)

    def _committed(self, group: Group, error: sqlite3.Error | None) -> None:
        if error is None:
            self._ready.extend(group.rows)
        for caller in group.callers:
            if caller.cancelled():
                continue
            if error is None:
                caller.set_result(None)
            else:
                caller.set_exception(error)
        self._committing = bool(self._gathering.callers)
        if self._committing:
            self._commit()

    def _run(self) -> None:
        for group in iter(self._work.get, None):
            error: sqlite3.Error | None = None
            try:
                self._write(group)
            except sqlite3.Error as caught:
                error = caught
            self._loop.call_soon_threadsafe(self._committed, group, error)

    def _write(self, group: Group) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            if group.rows:
                execute(insert_statement(len(group.rows)), list(chain.from_iterable(group.rows)))
            ranges = as_ranges(group.done_ids)
            for start in range(0, len(ranges), RANGES_MAX):
                part = ranges[start : start + RANGES_MAX]
                execute(delete_statement(len(part)), list(chain.from_iterable(part)))
            execute("COMMIT")
        except sqlite3.Error:
            self._connection.rollback()
            raise


class AnchorService:
    """The three calls. Messages are bytes here: the views have the field numbers of the public messages."""

    def __init__(self, store: Store) -> None:
        """Serves one store."""
        self._store = store

    async def send_messages(self, request: bytes, _: object) -> bytes:
        """Reply with the ids once the messages are synced."""
        view = views_pb2.SendMessagesRequestView.FromString(request)
        ids = await self._store.add(view.messages)
        return messaging_service_pb2.SendMessagesResponse(sequence_numbers=ids).SerializeToString()

    async def receive_messages(self, request: bytes, _: object) -> bytes:
        """Reply at once with what there is."""
        wanted = messaging_service_pb2.ReceiveMessagesRequest.FromString(request).max_messages
        rows = self._store.take(wanted)
        return views_pb2.ReceiveMessagesResponseView(
            sequence_numbers=[number for number, _ in rows], messages=[body for _, body in rows]
        ).SerializeToString()

    async def settle_messages(self, request: bytes, _: object) -> bytes:
        """Reply once the messages are gone; knows no outcome but complete."""
        settle = messaging_service_pb2.SettleMessagesRequest.FromString(request)
        for settlement in settle.settlements:
            await self._store.remove(settlement.sequence_numbers)
        return b""

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the calls by name, for a server that passes bytes."""
        calls: dict[str, Any] = {
            "SendMessages": grpc.unary_unary_rpc_method_handler(self.send_messages),
            "ReceiveMessages": grpc.unary_unary_rpc_method_handler(self.receive_messages),
            "SettleMessages": grpc.unary_unary_rpc_method_handler(self.settle_messages),
        }
        return grpc.method_handlers_generic_handler(SERVICE, calls)


async def serve(port: int, data_dir: Path) -> None:
    """Run the server until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    store = Store(data_dir / "anchor.sqlite", loop)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((AnchorService(store).handler(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await server.start()
    await stopping.wait()
    await server.stop(grace=5)
    store.close()


class AnchorClient:
    """The load: builds, serialises and parses real messages, as a program that uses a queue does."""

    def __init__(self, channel: grpc.aio.Channel, *, batch: int, body_bytes: int) -> None:
        """Uses one channel for all workers."""
        self._stub: Any = messaging_service_pb2_grpc.MessagingServiceStub(channel)
        self._batch = batch
        self._body = bytes(body_bytes)

    async def cycle(self, latencies: measure.Latencies, due: float) -> int:
        """Send a batch, receive as many messages, complete them."""
        batch = self._batch
        request = messaging_service_pb2.SendMessagesRequest(entity=ENTITY)
        for _ in range(batch):
            request.messages.append(message_pb2.Message(session_id="session-0001", body=self._body))
        await self._stub.SendMessages(request)
        sent = time.perf_counter()

        reply = await self._stub.ReceiveMessages(
            messaging_service_pb2.ReceiveMessagesRequest(entity=ENTITY, max_messages=batch)
        )
        received = [(message.session_id, message.body) for message in reply.messages]
        receive_ended = time.perf_counter()
        if len(received) != batch:
            raise RuntimeError(
                f"the anchor handed out {len(received)} messages where {batch} were stored"
            )

        settlement = messaging_service_pb2.Settlement(
            complete=messaging_service_pb2.Complete(), sequence_numbers=reply.sequence_numbers
        )
        await self._stub.SettleMessages(
            messaging_service_pb2.SettleMessagesRequest(entity=ENTITY, settlements=[settlement])
        )
        latencies.record("send", sent - due)
        latencies.record("receive", receive_ended - sent)
        latencies.record("complete", time.perf_counter() - receive_ended)
        return batch


async def drive(run: measure.Run) -> measure.Figures:
    """Do the job of a run."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        client = AnchorClient(channel, batch=run.batch, body_bytes=run.body_bytes)
        return await measure.job_figures(client.cycle, run)


if __name__ == "__main__":
    sys.setswitchinterval(1e-4)
    gc.freeze()
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
