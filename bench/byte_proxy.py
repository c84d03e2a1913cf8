"""The yardstick of a hop: a proxy that passes the bytes of unary calls on and knows nothing of them.

Here belongs the least that any process between a client and a broker must do. Never here: what a call means. The laws:
each call is one call behind the proxy; an answer comes back as it is, an error with its code, details and metadata.

    python -m bench.byte_proxy PORT ADDRESS
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from typing import Any

import grpc
import grpc.aio

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Passing(grpc.GenericRpcHandler):
    """Answers every method by asking the other server."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        # The handler of each method that was called.
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the handler of a method."""
        method = handler_call_details.method
        if method not in self._handlers:
            self._handlers[method] = self._passing(method)
        return self._handlers[method]

    def _passing(self, method: str) -> grpc.RpcMethodHandler[Any, Any]:
        ask: Any = self._channel.unary_unary(method)

        async def answer(payload: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            try:
                response: bytes = await ask(payload)
            except grpc.aio.AioRpcError as error:
                code, details = error.code(), error.details() or ""
                await context.abort(code, details, tuple(error.trailing_metadata() or ()))
            return response

        return grpc.unary_unary_rpc_method_handler(answer)


async def serve(port: int, address: str) -> None:
    """Run the proxy until SIGTERM or SIGINT."""
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((Passing(channel),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        stopping, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await server.start()
        await stopping.wait()
        await server.stop(grace=1)


if __name__ == "__main__":
    gc.freeze()
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
