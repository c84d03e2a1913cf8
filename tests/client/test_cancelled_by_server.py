"""What a client makes of a call that its server cancelled, as a gRPC server that stops does (grpc issue 41785)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from lockstep.client.channel_aio import AioTransport
from lockstep.client.channel_blocking import BlockingTransport
from lockstep.client.transport import STREAM_MESSAGES, StreamTransport
from lockstep.core.errors import OperationTimeout
from lockstep.runtime.clock import SystemClock


@contextmanager
def cancelling_server() -> Iterator[str]:
    """Serve streams that the server cancels as soon as they are open."""

    def cancel(_requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.cancel()
        return iter(())

    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "StreamMessages": grpc.stream_stream_rpc_method_handler(cancel)
    }
    service = STREAM_MESSAGES.path.split("/")[1]
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


async def end_of_stream(transport: StreamTransport) -> None:
    stream = await transport.open_stream(STREAM_MESSAGES)
    try:
        assert await stream.read(within_ms=20_000) is None, "the stream had to end"
    finally:
        await stream.finish()


async def test_a_stream_that_the_server_cancels_can_be_tried_again() -> None:
    with cancelling_server() as target:
        transport = AioTransport(target, "c", SystemClock())
        with pytest.raises(OperationTimeout):
            await end_of_stream(transport)
        await transport.close()


async def test_a_blocking_stream_that_the_server_cancels_can_be_tried_again() -> None:
    with cancelling_server() as target:
        transport = BlockingTransport(target, "c", SystemClock())
        with pytest.raises(OperationTimeout):
            await end_of_stream(transport)
        await transport.close()
