"""The transport of the asyncio client to a broker in the same event loop.

Here belongs the client's side of a call. Never here: retries (`client.calls`), methods (`server`). The law: as
`client.channel_aio`, but for the sockets: bytes go out, bytes or a status come back.
"""

from __future__ import annotations

import asyncio
import random

from lockstep.client.transport import Method, RequestT, ResponseT
from lockstep.core.errors import ClientClosed
from lockstep.testing.server import CallFailed, InProcessServer
from lockstep.testing.virtual_time import VirtualTime
from lockstep.wire.status import from_rpc_error


class InProcessTransport:
    """Calls to a server of this event loop, in its time."""

    def __init__(self, server: InProcessServer, time: VirtualTime) -> None:
        self._server = server
        self._time = time
        self._is_closed = False
        # All and only the calls under way.
        self._open: set[asyncio.Timeout] = set()

    async def call(
        self, method: Method[RequestT, ResponseT], request: RequestT, *, timeout_ms: int
    ) -> ResponseT:
        """Make one call; see `Transport.call`. `timeout_ms` is of virtual time."""
        if self._is_closed:
            raise ClientClosed("This client was closed; make another one.")
        payload = request.SerializeToString()
        try:
            async with asyncio.timeout(None) as end:
                self._open.add(end)
                try:
                    response = await self._server.call(method.path, payload, timeout_ms=timeout_ms)
                finally:
                    self._open.discard(end)
        except CallFailed as error:
            raise from_rpc_error(error) from error
        except TimeoutError as error:
            raise ClientClosed("The client was closed during this call.") from error
        return method.response.FromString(response)

    async def sleep(self, delay_ms: int) -> None:
        """Wait until time was moved by `delay_ms` milliseconds."""
        await self._time.sleep(delay_ms)

    async def settle(self) -> None:
        """Let the broker go on for a moment with what needs no time; see `StandingTime`."""
        await self._time.let_others_run()

    async def is_serving(self, *, within_ms: int) -> bool:  # noqa: ARG002  # known at once
        """Whether the transport is open; its server serves for as long."""
        return not self._is_closed

    def now_ms(self) -> int:
        """Return the virtual time of day in milliseconds since the epoch."""
        return self._time.clock.now_ms()

    def monotonic_ms(self) -> int:
        """Return by how many milliseconds time was moved."""
        return self._time.clock.monotonic_ms()

    def random(self) -> float:
        """Return a number from 0 to 1."""
        return random.random()

    async def close(self) -> None:
        """Refuse further calls; calls under way end with ClientClosed."""
        self._is_closed = True
        for end in self._open:
            end.reschedule(asyncio.get_running_loop().time())
