"""The transport of the asyncio client: a channel of grpc.aio.

Here belongs what that library needs. Never here: retries. The law: every foreign exception leaves
as one of ours, and a cancelled task sees CancelledError, nothing else does.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
import grpc.aio

from lockstep.client.channel_options import CHANNEL_OPTIONS, HEALTH_CHECK, SERVING, call_metadata
from lockstep.client.stream_call_aio import AioStreamCall
from lockstep.client.transport import Method, RequestT, ResponseT, StreamCall
from lockstep.core.errors import ClientClosed
from lockstep.runtime.clock import Clock
from lockstep.wire.status import from_rpc_error


class AioTransport:
    """Calls over one channel, opened by the first call on that call's event loop."""

    def __init__(self, target: str, client_id: str, clock: Clock) -> None:
        """Remember where to connect to.

        Args:
            target: The server, as gRPC names it.
            client_id: Told to the server with every call.
            clock: Time.
        """
        self._target = target
        self._metadata = call_metadata(client_id)
        self._clock = clock
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[str, Any] = {}
        self._closed = asyncio.Event()

    async def call(
        self, method: Method[RequestT, ResponseT], request: RequestT, *, timeout_ms: int
    ) -> ResponseT:
        """Make one call; see `Transport.call`."""
        if self._closed.is_set():
            raise ClientClosed("This client was closed; make another one.")
        stub = self._stubs.get(method.path) or self._open_stub(method)
        try:
            response: ResponseT = await stub(
                request, timeout=timeout_ms / 1000, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        except asyncio.CancelledError as error:
            # Closing a channel ends its calls with CancelledError, in tasks that nobody cancelled.
            task = asyncio.current_task()
            if self._closed.is_set() and task is not None and not task.cancelling():
                raise ClientClosed("The client was closed during this call.") from error
            raise
        return response

    async def open_stream(
        self, method: Method[RequestT, ResponseT]
    ) -> StreamCall[RequestT, ResponseT]:
        """Begin a stream; see `StreamTransport.open_stream`."""
        if self._closed.is_set():
            raise ClientClosed("This client was closed; make another one.")
        stub = self._open_channel().stream_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return await AioStreamCall[RequestT, ResponseT](stub, self._metadata).start()

    async def sleep(self, delay_ms: int) -> None:
        """Wait for `delay_ms` milliseconds."""
        await self._clock.sleep(delay_ms)

    async def is_serving(self, *, within_ms: int) -> bool:
        """Ask the server's health service; see `Transport.is_serving`."""
        if self._closed.is_set():
            return False
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._open_channel().unary_unary(
            HEALTH_CHECK
        )
        try:
            answer: bytes = await ask(
                b"", timeout=within_ms / 1000, metadata=self._metadata, wait_for_ready=True
            )
        except grpc.aio.AioRpcError:
            return False
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed.is_set() and task is not None and not task.cancelling():
                return False  # as in `call`
            raise
        return answer == SERVING

    def now_ms(self) -> int:
        """Return the time of day in milliseconds since the epoch."""
        return self._clock.now_ms()

    def monotonic_ms(self) -> int:
        """Return milliseconds since some fixed point."""
        return self._clock.monotonic_ms()

    def random(self) -> float:
        """Return a number from 0 to 1."""
        return random.random()

    async def close(self) -> None:
        """Close the channel; calls under way end with ClientClosed."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._channel is not None:
            await self._channel.close()

    def _open_channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._target, options=CHANNEL_OPTIONS)
        return self._channel

    def _open_stub(self, method: Method[RequestT, ResponseT]) -> Any:
        stub = self._stubs[method.path] = self._open_channel().unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return stub
