"""One stream of the asyncio client: a call of grpc.aio.

Here belongs what that library needs for a stream. Never here: what passes on it (`streams`). The law: what a program
cancels is its own wait, never the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Generic, Self

import grpc
import grpc.aio

from lockstep.client.transport import RequestT, ResponseT
from lockstep.core.errors import ClientClosed, LockstepError
from lockstep.wire.status import from_rpc_error


class AioStreamCall(Generic[RequestT, ResponseT]):
    """A stream, with the task that reads it; see `StreamCall`."""

    def __init__(self, stub: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        """Be ready to `start`.

        Args:
            stub: The method, of an open channel.
            metadata: Told to the server with the call.
        """
        self._stub = stub
        self._metadata = metadata
        self._call: Any = None
        # None = no more come. What is read never exceeds the credit that was given, so neither queue needs a limit.
        self._requests: asyncio.Queue[RequestT | None] = asyncio.Queue()
        self._responses: asyncio.Queue[ResponseT | LockstepError] = asyncio.Queue()
        self._group = asyncio.TaskGroup()

    async def start(self) -> Self:
        """Begin, and return itself."""
        # gRPC sends from a task of its own, because cancelling a write would cancel the whole call.
        self._call = self._stub(self._sent(), metadata=self._metadata)
        await self._group.__aenter__()
        self._group.create_task(self._read_all())
        return self

    def write(self, request: RequestT) -> None:
        """See `StreamCall`."""
        self._requests.put_nowait(request)

    def end_writing(self) -> None:
        """See `StreamCall`."""
        self._requests.put_nowait(None)

    async def read(self, *, within_ms: int | None) -> ResponseT | None:
        """See `StreamCall`."""
        if self._responses.empty():
            try:
                async with asyncio.timeout(None if within_ms is None else within_ms / 1000):
                    response = await self._responses.get()
            except TimeoutError:
                return None
        else:
            response = self._responses.get_nowait()
        if isinstance(response, LockstepError):
            self._responses.put_nowait(response)
            raise response
        return response

    async def finish(self) -> None:
        """See `StreamCall`."""
        self.end_writing()
        self._call.cancel()
        # The reader raises nothing, so that neither does its group.
        await self._group.__aexit__(None, None, None)

    async def _sent(self) -> AsyncIterator[RequestT]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def _read_all(self) -> None:
        end: LockstepError = ClientClosed("This stream was closed.")
        try:
            while (response := await self._call.read()) is not grpc.aio.EOF:
                self._responses.put_nowait(response)
        except grpc.aio.AioRpcError as error:
            end = from_rpc_error(error)
        finally:
            # A cancelled call, and a closed channel, end this task with CancelledError.
            self._responses.put_nowait(end)
