"""The yardstick of a hop passes bytes and errors on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from bench.byte_proxy import Passing

METHOD = "/some.Service/Do"


class Echo(grpc.GenericRpcHandler):
    """Answers with what it was asked; refuses what is empty."""

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any]:
        async def answer(payload: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            if not payload:
                await context.abort(
                    grpc.StatusCode.NOT_FOUND, "nothing there", (("reason", "EMPTY"),)
                )
            return payload

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
async def call() -> AsyncIterator[Any]:
    """A method of a server behind the proxy."""
    behind, proxy = grpc.aio.server(), grpc.aio.server()
    behind.add_generic_rpc_handlers((Echo(),))
    port = behind.add_insecure_port("127.0.0.1:0")
    await behind.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        proxy.add_generic_rpc_handlers((Passing(channel),))
        port = proxy.add_insecure_port("127.0.0.1:0")
        await proxy.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as client:
            yield client.unary_unary(METHOD)
        await proxy.stop(None)
    await behind.stop(None)


async def test_bytes_come_back_as_the_server_sent_them(call: Any) -> None:
    assert await call(b"\x00what it is\xff") == b"\x00what it is\xff"


async def test_an_error_comes_back_with_its_code_text_and_metadata(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"")

    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "nothing there"
    assert ("reason", "EMPTY") in tuple(refused.value.trailing_metadata() or ())
