"""A gRPC server from a table of methods.

Here belongs everything that all services share: how errors leave, what is counted and logged, health,
reflection, limits. Never here: what a method does. The law: whatever happens in a method, its caller gets
a status with a reason, and the server goes on.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from prometheus_client import Counter

from lockstep.core.errors import (
    InternalError,
    InvalidRequest,
    LockstepError,
    Moved,
    QuotaExceeded,
    ServerBusy,
    ShuttingDown,
    StoreUnavailable,
)
from lockstep.runtime.clock import Clock
from lockstep.runtime.metrics import Metrics
from lockstep.wire.status import CODES, to_status

log = logging.getLogger(__name__)

_BUSY_RETRY_MS = 500
PING_INTERVAL_MIN_MS: Final = 5_000
_SLACK_BYTES = 1024 * 1024  # what a request may have beside its messages
# Why a call that was right was refused all the same, by the family of its error.
_THROTTLED: tuple[tuple[type[LockstepError], str], ...] = (
    (QuotaExceeded, "quota"),
    (ServerBusy, "backpressure"),
    (Moved, "partition_moving"),
    (ShuttingDown, "partition_moving"),
    (StoreUnavailable, "store"),
)
caller: ContextVar[str] = ContextVar("caller", default="")
"""Where the call came from that is being answered, as gRPC names it; only for methods that want to know."""
_Handler = Callable[[bytes, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Method:
    """One unary method.

    Attributes:
        name: Its name in the protos.
        call: Answers a request with a message, or with the bytes of one.
        request: The class of the request; None = `call` wants its bytes.
        refused: Told of a request that was refused for load before `call` saw it.
        is_reserved: Never refused for load, because the holder of a lock needs it (ADD-14).
        wants_caller: Whether `caller` is set for it.
    """

    name: str
    call: Callable[[Any], Awaitable[Message | bytes]]
    request: type[Message] | None = None
    refused: Callable[[bytes, LockstepError], None] | None = None
    is_reserved: bool = False
    wants_caller: bool = False


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """One method with a stream in both directions.

    Attributes:
        name: Its name in the protos.
        call: Serves one stream: gets its requests, as they are on the wire, and what sends a response. The requests end
            when the caller closes its side, and when the stream breaks; then sending raises ConnectionResetError.
        is_reserved: Never refused for load, because others wait for what it tells.
    """

    name: str
    call: Callable[[AsyncIterator[bytes], Callable[[bytes], Awaitable[None]]], Awaitable[None]]
    is_reserved: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A service: its full name in the protos, and its methods."""

    name: str
    methods: Sequence[Method]
    streams: Sequence[StreamMethod] = ()


class Server:
    """Serves services on one address, with health and reflection."""

    def __init__(
        self,
        services: Sequence[Service],
        *,
        clock: Clock,
        metrics: Metrics,
        request_bytes_max: int,
        calls_max: int,
        ping_interval_min_ms: int = PING_INTERVAL_MIN_MS,
    ) -> None:
        """Prepare a server.

        Args:
            services: What to serve.
            clock: For durations.
            metrics: Where calls are counted.
            request_bytes_max: The largest send, in bytes, before what gRPC itself needs.
            calls_max: Calls that may be open at a time; more are refused, but for reserved ones.
            ping_interval_min_ms: Who asks more often whether the connection is alive is hung up on.
        """
        self._clock = clock
        self._metrics = metrics
        self._calls_max = calls_max
        self._open_calls = 0
        self._health = HealthServicer()
        self._names = [service.name for service in services]
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", request_bytes_max + _SLACK_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                # A client that vanished without a word is found in 15 s: it must not be granted a session.
                ("grpc.keepalive_time_ms", 10_000),
                ("grpc.keepalive_timeout_ms", 5_000),
                ("grpc.http2.ping_timeout_ms", 5_000),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", ping_interval_min_ms),
            ]
        )
        for service in services:
            handlers = {m.name: self._handler(service.name, m) for m in service.methods}
            handlers |= {m.name: self._stream_handler(service.name, m) for m in service.streams}
            generic = grpc.method_handlers_generic_handler(service.name, handlers)
            self._server.add_generic_rpc_handlers((generic,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflected = (*self._names, reflection.SERVICE_NAME, "grpc.health.v1.Health")
        reflection.enable_server_reflection(reflected, self._server)

    async def start(
        self, host: str, port: int, options: tuple[str, str] = ("--host", "--port")
    ) -> int:
        """Listen, not yet healthy, and return the port.

        Args:
            host: An address, IPv4 or IPv6, or a name.
            port: The port; 0 = any free one.
            options: With which options a user of the process names the host and the port.

        Raises:
            InvalidRequest: The address cannot be listened on.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            _try_to_bind(host, port)  # gRPC tells less, and prints a line of its own
            port = self._server.add_insecure_port(address)
        except (OSError, RuntimeError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            advice = f"Stop what uses the address, or choose another port with {options[1]}."
            if isinstance(error, socket.gaierror) or _is_elsewhere(error):
                advice = f"Check the name, or give an address of this machine with {options[0]}."
            raise InvalidRequest(
                f"Cannot listen on {address}: {why}. {advice}",
                details={"address": address},
            ) from error
        await self._server.start()
        return port

    async def set_serving(self, *, is_serving: bool) -> None:
        """Say to health checks whether calls are welcome."""
        serving = health_pb2.HealthCheckResponse.SERVING
        status = serving if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def stop(self, grace_ms: int) -> None:
        """Take no more calls, and end those that are open after a time."""
        await self._server.stop(grace_ms / 1000)

    def _handler(self, service: str, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        full_name = f"{service.rpartition('.')[2]}/{method.name}"
        requests = self._metrics.frontend_requests
        succeeded = requests.labels(full_name, "OK")
        duration = self._metrics.frontend_request_duration_seconds.labels(full_name)

        async def handle(payload: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            started_ms = self._clock.monotonic_ms()
            self._metrics.frontend_received_bytes.inc(len(payload))
            self._open_calls += 1
            if method.wants_caller:
                caller.set(context.peer())
            try:
                response = await self._call(method, payload)
            except LockstepError as error:
                requests.labels(full_name, _code(error)).inc()
                self._count_throttled(error)
                await context.abort_with_status(to_status(error))
            except asyncio.CancelledError:  # the caller gave up, or its deadline passed
                requests.labels(full_name, "CANCELLED").inc()
                raise
            except Exception as error:  # the top of a call: a bug must not take the server down
                log.exception("call.failed", extra={"method": full_name})
                requests.labels(full_name, "INTERNAL").inc()
                told = InternalError(
                    f"The server failed: {type(error).__name__}. Its log says more."
                )
                await context.abort_with_status(to_status(told))
            finally:
                self._open_calls -= 1
            succeeded.inc()
            duration.observe((self._clock.monotonic_ms() - started_ms) / 1000)
            self._metrics.frontend_sent_bytes.inc(len(response))
            return response

        return grpc.unary_unary_rpc_method_handler(handle)

    def _stream_handler(
        self, service: str, method: StreamMethod
    ) -> grpc.RpcMethodHandler[Any, Any]:
        full_name = f"{service.rpartition('.')[2]}/{method.name}"
        requests = self._metrics.frontend_requests
        streams = self._metrics.frontend_streams.labels(full_name)

        async def serve(
            payloads: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
        ) -> None:
            caller.set(context.peer())
            self._open_calls += 1
            streams.inc()
            try:
                if self._open_calls > self._calls_max and not method.is_reserved:
                    raise self._busy()
                received = _Measured(payloads, self._metrics.frontend_received_bytes)
                await method.call(received, partial(_write, context, self._metrics))
            except LockstepError as error:
                requests.labels(full_name, _code(error)).inc()
                self._count_throttled(error)
                await context.abort_with_status(to_status(error))
            except (asyncio.CancelledError, ConnectionResetError):
                requests.labels(full_name, "CANCELLED").inc()
                raise
            except Exception as error:  # the top of a call: a bug must not take the server down
                log.exception("call.failed", extra={"method": full_name})
                requests.labels(full_name, "INTERNAL").inc()
                told = InternalError(
                    f"The server failed: {type(error).__name__}. Its log says more."
                )
                await context.abort_with_status(to_status(told))
            finally:
                self._open_calls -= 1
                streams.dec()
            requests.labels(full_name, "OK").inc()

        return grpc.stream_stream_rpc_method_handler(serve)

    def _busy(self) -> ServerBusy:
        return ServerBusy(
            f"{self._open_calls} calls are open, of at most {self._calls_max}. Nothing was done. Try again after"
            f" {_BUSY_RETRY_MS} ms.",
            details={"limit": "concurrent_requests_max", "configured": str(self._calls_max)},
            retry_after_ms=_BUSY_RETRY_MS,
        )

    def _count_throttled(self, error: LockstepError) -> None:
        for kind, reason in _THROTTLED:
            if isinstance(error, kind):
                self._metrics.frontend_throttled.labels(reason).inc()
                return

    async def _call(self, method: Method, payload: bytes) -> bytes:
        if self._open_calls > self._calls_max and not method.is_reserved:
            busy = self._busy()
            if method.refused is not None:
                method.refused(payload, busy)
            raise busy
        return await answer(method, payload)


class _Measured:
    """The requests of a stream, whose bytes are counted as they come."""

    def __init__(self, payloads: AsyncIterator[bytes], received: Counter) -> None:
        self._payloads = payloads
        self._received = received

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        payload = await anext(self._payloads)
        self._received.inc(len(payload))
        return payload


async def _write(
    context: grpc.aio.ServicerContext[Any, Any], metrics: Metrics, response: bytes
) -> None:
    """Send one response of a stream.

    Raises:
        ConnectionResetError: The stream is broken.
    """
    try:
        await context.write(response)
    except Exception as error:  # which ones, gRPC does not say
        raise ConnectionResetError("The stream is broken.") from error
    metrics.frontend_sent_bytes.inc(len(response))


async def answer(method: Method, payload: bytes) -> bytes:
    """Have a method answer a request, both as they are on the wire.

    Raises:
        InvalidRequest: The payload is no such request.
        LockstepError: As the method says.
    """
    if method.request is None:
        return _bytes(await method.call(payload))
    try:
        request = method.request.FromString(payload)
    except DecodeError as error:
        wanted = method.request.DESCRIPTOR.name
        raise InvalidRequest(f"This is no {wanted}: {error}. Check the client's protos.") from error
    return _bytes(await method.call(request))


def _bytes(response: Message | bytes) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()


def _try_to_bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.getaddrinfo(
        host or None, port, family
    )  # create_server does not tell what is wrong with a name
    socket.create_server((host, port), family=family).close()


def _is_elsewhere(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL


def _code(error: LockstepError) -> str:
    return CODES.get(type(error), grpc.StatusCode.UNKNOWN).name
