"""The gRPC channel from a process to an owner, over the simulated network.

Here belongs as much of `grpc.aio.Channel` as `frontend.remote` uses: what it raises, and when. Never here: delays and
breaks (`network`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import grpc
import grpc.aio

from lockstep.core.errors import LockstepError
from lockstep.internal.v1 import owner_service_pb2 as wire
from lockstep.owner.service import OwnerService
from lockstep.wire.status import to_status
from tests.simcluster.network import Broken, Call, Network
from tests.simcluster.processes import Line, Process

ServiceOf = Callable[[Process], OwnerService]


def open_channel(
    network: Network, caller: Process, address: str, service_of: ServiceOf
) -> grpc.aio.Channel:
    """Return a connection of a process to an owner service."""
    return cast(grpc.aio.Channel, _Channel(network, caller, address, service_of))


class _Channel:
    def __init__(
        self, network: Network, caller: Process, address: str, service_of: ServiceOf
    ) -> None:
        self.network = network
        self._caller = caller
        self._address = address
        self._service_of = service_of
        self._open: dict[Call[Any], None] = {}

    def unary_unary(self, method: str, **_codecs: object) -> Any:
        if not method.endswith("/Call"):
            return lambda _request, timeout: None
        return self._call

    def stream_stream(self, method: str, **_codecs: object) -> Any:
        assert method.endswith("/FollowHints")
        return lambda: _Hints(self)

    def new(self, serve: Callable[[OwnerService], Any]) -> Call[Any]:
        """Return a call that is not sent yet."""
        service_of = self._service_of
        call: Call[Any] = Call(
            self.network, self._caller, self._address, lambda process: serve(service_of(process))
        )
        self._open[call] = None
        call.outcome.add_done_callback(lambda _: self._open.pop(call, None))
        return call

    async def _call(self, request: wire.CallRequest, **options: float) -> wire.CallResponse:
        call = self.new(lambda service: service.call(request))
        try:
            response: wire.CallResponse = await call.made(options["timeout"] * 1000)
        except Broken as error:
            raise _of_grpc(grpc.StatusCode.UNAVAILABLE, str(error)) from None
        except LockstepError as error:
            raise _of_server(error) from None
        return response

    async def close(self) -> None:
        for call in list(self._open):
            call.close()


class _Hints:
    """One stream of hints."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._call: Call[None] | None = None
        self._way = Line(channel.network.outside, self._arrive, self._is_cut)
        self._came: deque[bytes] = deque()
        self._bell = asyncio.Event()

    async def write(self, request: wire.FollowHintsRequest) -> None:
        payload = request.SerializeToString()

        async def payloads() -> AsyncIterator[bytes]:
            yield payload

        self._call = self._channel.new(lambda service: service.follow_hints(payloads(), self._send))
        self._call.outcome.add_done_callback(lambda _: self._bell.set())
        self._call.begin()

    async def done_writing(self) -> None:
        """The one request is all."""

    async def _send(self, response: bytes) -> None:
        assert self._call is not None
        self._way.send(response, self._call.delay_ms())

    def _is_cut(self) -> bool:
        return self._call is not None and not self._call.outcome.done() and self._call.is_cut()

    def _arrive(self, response: bytes) -> None:
        assert self._call is not None
        if not self._call.outcome.done():
            self._came.append(response)
            self._bell.set()

    def __aiter__(self) -> AsyncIterator[wire.FollowHintsResponse]:
        return self._responses()

    async def _responses(self) -> AsyncIterator[wire.FollowHintsResponse]:
        call = self._call
        assert call is not None
        while True:
            while self._came:
                yield wire.FollowHintsResponse.FromString(self._came.popleft())
            if call.outcome.done():
                try:
                    await call.outcome
                except Broken as error:
                    raise _of_grpc(grpc.StatusCode.UNAVAILABLE, str(error)) from None
                except LockstepError as error:
                    raise _of_server(error) from None
                return
            self._bell.clear()
            await self._bell.wait()

    def cancel(self) -> None:
        if self._call is not None:
            self._call.let_go()


def _of_grpc(code: grpc.StatusCode, text: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), text)


def _of_server(error: LockstepError) -> grpc.aio.AioRpcError:
    status = to_status(error)
    trailers = grpc.aio.Metadata(*(status.trailing_metadata or ()))
    return grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), trailers, status.details)
