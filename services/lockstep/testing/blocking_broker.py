"""The in-process broker for tests that block.

Here belongs what a test can ask of it, and its thread. Never here: how it works (`server`, `virtual_time`). The law:
nothing is shared between two brokers, and no thread outlives its `with` block.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from lockstep.client.blocking.client import LockstepClient
from lockstep.client.connection import new_connection
from lockstep.client.values import datetime_of_ms, seconds_to_ms
from lockstep.runtime.clock import SystemClock
from lockstep.testing.blocking_transport import (
    BlockingInProcessTransport,
    BrokerLoop,
    ClientThreads,
)
from lockstep.testing.broker import ADDRESS, RETRIES, to_ms
from lockstep.testing.server import InProcessServer, checked_partitions
from lockstep.testing.virtual_time import VirtualTime

_LOOK_EVERY_MS: Final = 1
_WAITING_WITHIN_MS: Final = 10_000


class BlockingClock:
    """The clock of a broker: it stands still until it is advanced."""

    def __init__(self, broker: BlockingBroker) -> None:
        self._broker = broker

    def now(self) -> datetime:
        """Return the virtual time of day, in UTC."""
        return datetime_of_ms(self._broker._time.clock.now_ms())

    def advance(self, seconds: float) -> None:
        """Move time; see `BlockingBroker.advance`."""
        self._broker.advance(seconds)

    def sleep(self, seconds: float) -> None:
        """Block until time was moved by `seconds`; for programs that can be given a sleep of their own."""
        delay_ms = seconds_to_ms(seconds, "seconds")
        self._broker._running().run(self._broker._time.sleep(delay_ms))


class BlockingBroker:
    """A broker in a thread of its own, with nothing in it and a clock that stands still.

    Use it once, as `with BlockingBroker() as broker:`. Leaving the block closes its clients and forgets everything. It
    is the real core, owner, front end and client; only sockets, disks and the machine's clock are left out.
    """

    def __init__(
        self,
        *,
        start: datetime | None = None,
        patience: float | None = 30,
        partitions: int = 1,
    ) -> None:
        """Be ready to start.

        Args:
            start: When virtual time begins; None = now. Without a zone it counts as UTC.
            patience: After so many seconds of real time in which calls wait and nothing happens, they end with a
                RuntimeError that says so, in place of a test that hangs; and so does an `advance` while the broker is
                called without a pause. None = never.
            partitions: How many it has. With several, the sessions of a session queue live on different partitions,
                as in a cluster: see docs/partitions.md for what that changes.

        Raises:
            InvalidRequest: `patience` is negative, or the number of partitions is not between 1 and 64.
        """
        self._threads = ClientThreads()
        self._patience_ms = None if patience is None else seconds_to_ms(patience, "patience")
        self._time = VirtualTime(to_ms(start), self._patience_ms, self._threads.are_quiet)
        self._partitions = checked_partitions(partitions)
        self._clients = ExitStack()
        self._server: InProcessServer | None = None
        self._loop: BrokerLoop | None = None
        self._stop = asyncio.Event()
        self._thread: threading.Thread | None = None
        self.clock = BlockingClock(self)
        """Its time, which renewals, waits and retries of its clients follow."""

    def client(self, namespace: str = "default") -> LockstepClient:
        """Return a new client: a `lockstep.LockstepClient`, closed with the broker or before.

        Args:
            namespace: The broker namespace of its calls.

        Raises:
            RuntimeError: The broker does not run.
        """
        loop, server = self._running(), self._server
        assert server is not None, "a running broker has a server"
        connection = new_connection(
            lambda _target, _client_id, _clock: BlockingInProcessTransport(
                server, self._time, loop
            ),
            ADDRESS,
            namespace,
            RETRIES,
        )
        client = LockstepClient._over(connection)
        self._clients.callback(client.close)
        return client

    def advance(self, seconds: float) -> None:
        """Move time forward; everything that becomes due on the way happens at its time.

        Locks run out, waiting calls end, messages expire or become active, renewals are made. Between two such moments
        time stands still until every thread that was answered has called the broker again, has ended, or has done
        something else for 100 ms. A thread that was just started is not known yet: see `wait_for_calls`.

        Raises:
            InvalidRequest: `seconds` is negative.
            RuntimeError: The broker does not run, time is being advanced by another thread, or a thread calls the
                broker without ever waiting.
        """
        delta_ms = seconds_to_ms(seconds, "seconds")
        self._running().run(self._time.advance(delta_ms))

    def wait_for_calls(self, count: int = 1) -> None:
        """Block until `count` calls and sleeps of other threads wait at the broker; time stands still meanwhile.

        Raises:
            TimeoutError: There were not so many within 10 s of real time.
            RuntimeError: The broker does not run.
        """
        self._running().run(self._until_open(count))

    async def _until_open(self, count: int) -> None:
        assert self._server is not None, "a running broker has a server"
        real = SystemClock()
        began_ms = real.monotonic_ms()
        while True:
            await self._time.settle()
            waiting = self._server.open_calls + self._time.sleeping
            if waiting >= count:
                return
            if real.monotonic_ms() - began_ms > _WAITING_WITHIN_MS:
                raise TimeoutError(
                    f"{waiting} calls wait at the broker, not {count}, after"
                    f" {_WAITING_WITHIN_MS} ms of real time."
                )
            await real.sleep(_LOOK_EVERY_MS)

    def _running(self) -> BrokerLoop:
        if self._loop is None:
            raise RuntimeError(
                "The broker does not run; use it as `with BlockingBroker() as broker:`."
            )
        return self._loop

    def __enter__(self) -> Self:
        started: Future[BrokerLoop] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="lockstep-broker", daemon=True
        )
        self._thread.start()
        self._loop = started.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop, thread = self._running(), self._thread
        assert thread is not None, "a running broker has a thread"
        try:
            self._clients.close()
        finally:
            self._loop = None
            loop.call_soon(self._stop.set)
            thread.join()

    async def _serve(self, started: Future[BrokerLoop]) -> None:
        try:
            self._server = InProcessServer(self._time, self._patience_ms, self._partitions)
            await self._server.start()
        except BaseException as error:
            started.set_exception(error)
            raise
        started.set_result(BrokerLoop(asyncio.get_running_loop(), self._threads))
        await self._stop.wait()
        await self._server.stop()
