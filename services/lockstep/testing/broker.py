"""The in-process broker for tests with asyncio.

Here belongs what a test can ask of it. Never here: how it works (`server`, `virtual_time`). The law: nothing is shared
between two brokers.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self

from lockstep.client.aio.client import LockstepClient
from lockstep.client.connection import RetryOptions, new_connection
from lockstep.client.values import datetime_of_ms, seconds_to_ms
from lockstep.testing.aio_transport import InProcessTransport
from lockstep.testing.server import InProcessServer, checked_partitions
from lockstep.testing.virtual_time import VirtualTime

ADDRESS: Final = "in-process"
"""What errors name in place of a server's address."""

RETRIES: Final = RetryOptions(
    retry_total=3, retry_backoff_factor=0.8, retry_backoff_max=60, timeout=60
)
"""Those of a client that says nothing."""


def to_ms(moment: datetime | None) -> int | None:
    """Return a moment in milliseconds since the epoch; without a zone it counts as UTC."""
    if moment is None:
        return None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(zoned.timestamp() * 1000)


class BrokerClock:
    """The clock of a broker: it stands still until it is advanced."""

    def __init__(self, time: VirtualTime) -> None:
        self._time = time

    def now(self) -> datetime:
        """Return the virtual time of day, in UTC."""
        return datetime_of_ms(self._time.clock.now_ms())

    async def advance(self, seconds: float) -> None:
        """Move time; see `Broker.advance`."""
        await self._time.advance(seconds_to_ms(seconds, "seconds"))

    async def sleep(self, seconds: float) -> None:
        """Wait until time was moved by `seconds`; for programs that can be given a sleep of their own."""
        await self._time.sleep(seconds_to_ms(seconds, "seconds"))


class Broker:
    """A broker in this event loop, with nothing in it and a clock that stands still.

    Use it once, as `async with Broker() as broker:`. Leaving the block closes its clients and forgets everything. It is
    the real core, owner, front end and client; only sockets, disks and the machine's clock are left out.
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
        patience_ms = None if patience is None else seconds_to_ms(patience, "patience")
        self._time = VirtualTime(to_ms(start), patience_ms)
        self._server = InProcessServer(self._time, patience_ms, checked_partitions(partitions))
        self._clients = AsyncExitStack()
        self.clock = BrokerClock(self._time)
        """Its time, which renewals, waits and retries of its clients follow."""

    def client(self, namespace: str = "default") -> LockstepClient:
        """Return a new client: a `lockstep.aio.LockstepClient`, closed with the broker or before.

        Args:
            namespace: The broker namespace of its calls.
        """
        connection = new_connection(
            lambda _target, _client_id, _clock: InProcessTransport(self._server, self._time),
            ADDRESS,
            namespace,
            RETRIES,
        )
        client = LockstepClient._over(connection)
        self._clients.push_async_callback(client.close)
        return client

    async def advance(self, seconds: float) -> None:
        """Move time forward; everything that becomes due on the way happens at its time.

        Locks run out, waiting calls end, messages expire or become active, renewals are made. Between two such moments
        time stands still until the other tasks wait for the broker again, so what they do in answer happens at that
        moment too. Tasks that wait for the outside world, such as a socket, are not waited for. 0 seconds let the other
        tasks go on until they wait.

        Raises:
            InvalidRequest: `seconds` is negative.
            RuntimeError: Time is being advanced by another task, or a task calls the broker without ever waiting.
        """
        await self.clock.advance(seconds)

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._clients.aclose()
        finally:
            await self._server.stop()
