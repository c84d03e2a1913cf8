"""The transport of the blocking client: a channel of grpc.

Here belongs what that library needs. Never here: retries. The law: no await of this transport ever
suspends, so a coroutine over it runs from start to end in the caller's thread.
"""

from __future__ import annotations

import random
import threading
from typing import Any

import grpc

from lockstep.client.channel_options import CHANNEL_OPTIONS, HEALTH_CHECK, SERVING, call_metadata
from lockstep.client.stream_call_blocking import BlockingStreamCall
from lockstep.client.transport import Method, RequestT, ResponseT, StreamCall
from lockstep.core.errors import ClientClosed
from lockstep.runtime.clock import Clock
from lockstep.wire.status import from_rpc_error


class BlockingTransport:
    """Calls over one channel, opened by the first call. Threads may share it."""

    def __init__(self, target: str, client_id: str, clock: Clock) -> None:
        """Remember where to connect to.

        Args:
            target: The server, as gRPC names it.
            client_id: Told to the server with every call.
            clock: Time; its sleep is not used, because it would suspend.
        """
        self._target = target
        self._metadata = call_metadata(client_id)
        self._clock = clock
        self._opening = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stubs: dict[str, Any] = {}
        self._closed = threading.Event()

    async def call(
        self, method: Method[RequestT, ResponseT], request: RequestT, *, timeout_ms: int
    ) -> ResponseT:
        """Make one call; see `Transport.call`."""
        if self._closed.is_set():
            raise ClientClosed("This client was closed; make another one.")
        stub = self._stubs.get(method.path) or self._open_stub(method)
        try:
            response: ResponseT = stub(request, timeout=timeout_ms / 1000, metadata=self._metadata)
        except grpc.RpcError as error:
            if self._closed.is_set():
                raise ClientClosed("The client was closed during this call.") from error
            raise from_rpc_error(error) from error
        except ValueError as error:
            # How grpc says that another thread closed the channel just now.
            if self._closed.is_set():
                raise ClientClosed("The client was closed before this call.") from error
            raise
        return response

    async def open_stream(
        self, method: Method[RequestT, ResponseT]
    ) -> StreamCall[RequestT, ResponseT]:
        """Begin a stream; see `StreamTransport.open_stream`."""
        stub = self._open_channel().stream_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        try:
            return BlockingStreamCall[RequestT, ResponseT](stub, self._metadata, self._closed)
        except ValueError as error:
            if self._closed.is_set():
                raise ClientClosed("The client was closed before this stream.") from error
            raise

    async def sleep(self, delay_ms: int) -> None:
        """Block for `delay_ms` milliseconds, or until the transport is closed."""
        self._closed.wait(delay_ms / 1000)

    async def is_serving(self, *, within_ms: int) -> bool:
        """Ask the server's health service; see `Transport.is_serving`."""
        try:
            ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._open_channel().unary_unary(
                HEALTH_CHECK
            )
            answer: bytes = ask(
                b"", timeout=within_ms / 1000, metadata=self._metadata, wait_for_ready=True
            )
        except (grpc.RpcError, ClientClosed):
            return False
        except ValueError:
            if self._closed.is_set():
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
        """Close the channel; calls of other threads end with ClientClosed."""
        with self._opening:
            self._closed.set()
            if self._channel is not None:
                self._channel.close()

    def _open_channel(self) -> grpc.Channel:
        with self._opening:
            if self._closed.is_set():
                raise ClientClosed("This client was closed; make another one.")
            if self._channel is None:
                self._channel = grpc.insecure_channel(self._target, options=CHANNEL_OPTIONS)
            return self._channel

    def _open_stub(self, method: Method[RequestT, ResponseT]) -> Any:
        stub = self._stubs[method.path] = self._open_channel().unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return stub
