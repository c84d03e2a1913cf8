"""Both transports, against a server in this process that answers as told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from lockstep.client.channel_aio import AioTransport
from lockstep.client.channel_blocking import BlockingTransport
from lockstep.client.channel_options import SERVING
from lockstep.client.transport import GET_QUEUE, run_to_completion
from lockstep.errors import (
    ClientClosed,
    ConnectionFailed,
    EntityNotFound,
    OperationTimeout,
    ServerBusy,
)
from lockstep.runtime.clock import SystemClock
from lockstep.v1 import admin_service_pb2 as admin
from lockstep.wire.status import to_status


class Server:
    """Answers GetQueue by the name that is asked for."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.metadata: dict[str, Any] = {}
        handler: Any = grpc.unary_unary_rpc_method_handler(
            self._get_queue,
            request_deserializer=admin.GetQueueRequest.FromString,
            response_serializer=admin.GetQueueResponse.SerializeToString,
        )
        self._grpc = grpc.server(ThreadPoolExecutor(4))
        health: Any = grpc.unary_unary_rpc_method_handler(lambda _request, _context: SERVING)
        self._grpc.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "lockstep.v1.AdminService", {"GetQueue": handler}
                ),
                grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health}),
            )
        )
        self.address = f"127.0.0.1:{self._grpc.add_insecure_port(address)}"
        self._grpc.start()

    def stop(self) -> None:
        self.may_end.set()
        self._grpc.stop(None).wait()

    def _get_queue(self, request: admin.GetQueueRequest, context: Any) -> admin.GetQueueResponse:
        self.metadata = dict(context.invocation_metadata())
        if request.name == "missing":
            context.abort_with_status(to_status(EntityNotFound("no", details={"name": "missing"})))
        if request.name == "busy":
            context.abort_with_status(to_status(ServerBusy("busy", retry_after_ms=70)))
        if request.name == "slow":
            self.has_begun.set()
            self.may_end.wait(10)
        response = admin.GetQueueResponse()
        response.queue.name = request.name
        response.queue.settings.user_metadata = "x" * 5_000_000
        return response


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


def ask(name: str) -> admin.GetQueueRequest:
    return admin.GetQueueRequest(name=name)


def open_blocking(address: str) -> BlockingTransport:
    return BlockingTransport(address, "client-1", SystemClock())


def open_aio(address: str) -> AioTransport:
    return AioTransport(address, "client-1", SystemClock())


async def call_by(kind: str, address: str, name: str, *, timeout_ms: int = 5_000) -> Any:
    """Make one call, over either transport, and close it."""
    transport = open_blocking(address) if kind == "blocking" else open_aio(address)
    try:
        return await transport.call(GET_QUEUE, ask(name), timeout_ms=timeout_ms)
    finally:
        await transport.close()


@pytest.fixture(params=["blocking", "aio"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_an_answer_larger_than_grpcs_default_arrives(server: Server, kind: str) -> None:
    response = await call_by(kind, server.address, "orders")

    assert response.queue.name == "orders"
    assert server.metadata["x-lockstep-client"] == "python client-1"


async def test_an_error_arrives_as_what_it_was(server: Server, kind: str) -> None:
    with pytest.raises(EntityNotFound) as caught:
        await call_by(kind, server.address, "missing")
    with pytest.raises(ServerBusy) as busy:
        await call_by(kind, server.address, "busy")

    assert (caught.value.message, caught.value.details) == ("no", {"name": "missing"})
    assert busy.value.retry_after_ms == 70


async def test_no_answer_in_time_is_a_time_out(server: Server, kind: str) -> None:
    with pytest.raises(OperationTimeout):
        await call_by(kind, server.address, "slow", timeout_ms=100)


async def test_no_server_is_a_failed_connection(kind: str) -> None:
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1"):
        await call_by(kind, "127.0.0.1:1", "orders")


async def test_a_closed_transport_refuses_calls(server: Server, kind: str) -> None:
    transport = open_blocking(server.address) if kind == "blocking" else open_aio(server.address)
    await transport.close()
    await transport.close()

    with pytest.raises(ClientClosed):
        await transport.call(GET_QUEUE, ask("orders"), timeout_ms=1_000)


async def test_closing_ends_a_call_of_another_task(server: Server) -> None:
    transport = open_aio(server.address)

    async def work() -> None:
        with pytest.raises(ClientClosed):
            await transport.call(GET_QUEUE, ask("slow"), timeout_ms=10_000)

    async with asyncio.TaskGroup() as group:
        group.create_task(work())
        await asyncio.get_running_loop().run_in_executor(None, server.has_begun.wait, 10)
        await transport.close()


async def test_a_cancelled_call_is_cancelled_and_nothing_else(server: Server) -> None:
    transport = open_aio(server.address)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(transport.call(GET_QUEUE, ask("slow"), timeout_ms=10_000))
        await asyncio.get_running_loop().run_in_executor(None, server.has_begun.wait, 10)
        task.cancel()

    assert task.cancelled()
    await transport.close()


def test_closing_ends_a_call_of_another_thread(server: Server) -> None:
    transport = open_blocking(server.address)
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(
            lambda: run_to_completion(transport.call(GET_QUEUE, ask("slow"), timeout_ms=10_000))
        )
        assert server.has_begun.wait(10)
        run_to_completion(transport.close())

        with pytest.raises(ClientClosed):
            call.result(10)


def test_closing_ends_a_sleep_of_another_thread() -> None:
    transport = open_blocking("127.0.0.1:1")
    with ThreadPoolExecutor(1) as threads:
        sleep = threads.submit(lambda: run_to_completion(transport.sleep(60_000)))
        run_to_completion(transport.close())

        sleep.result(10)


async def test_the_end_of_an_outage_is_noticed(kind: str) -> None:
    server = Server()
    transport = open_blocking(server.address) if kind == "blocking" else open_aio(server.address)
    assert await transport.is_serving(within_ms=5_000)
    await asyncio.to_thread(server.stop)
    with pytest.raises(ConnectionFailed):
        await transport.call(GET_QUEUE, ask("orders"), timeout_ms=5_000)

    again: list[Server] = []
    start = threading.Timer(0.3, lambda: again.append(Server(server.address)))
    start.start()
    is_back = await transport.is_serving(within_ms=30_000)

    start.join()
    await transport.call(GET_QUEUE, ask("orders"), timeout_ms=5_000)
    await transport.close()
    await asyncio.to_thread(again[0].stop)
    assert is_back


async def test_no_server_serves_nothing(kind: str) -> None:
    transport = open_blocking("127.0.0.1:1") if kind == "blocking" else open_aio("127.0.0.1:1")
    started_ms = transport.monotonic_ms()

    is_serving = await transport.is_serving(within_ms=200)
    waited_ms = transport.monotonic_ms() - started_ms
    await transport.close()

    assert not is_serving
    assert 200 <= waited_ms < 5_000
    assert not await transport.is_serving(within_ms=60_000)


async def test_closing_ends_the_question_of_another_task() -> None:
    transport = open_aio("127.0.0.1:1")

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        asking = group.create_task(transport.is_serving(within_ms=60_000))
        await transport.sleep(1)
        await transport.close()

    assert not asking.result()


def test_closing_ends_the_question_of_another_thread() -> None:
    transport = open_blocking("127.0.0.1:1")
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(lambda: run_to_completion(transport.is_serving(within_ms=60_000)))
        run_to_completion(transport.close())

        assert not asking.result(10)


async def test_time_is_that_of_the_clock_and_chance_is_between_0_and_1(kind: str) -> None:
    transport = open_blocking("127.0.0.1:1") if kind == "blocking" else open_aio("127.0.0.1:1")
    clock = SystemClock()

    before_ms, before_monotonic_ms = clock.now_ms(), clock.monotonic_ms()
    await transport.sleep(1)

    assert before_ms <= transport.now_ms() <= clock.now_ms()
    assert before_monotonic_ms <= transport.monotonic_ms() <= clock.monotonic_ms()
    assert 0 <= transport.random() <= 1
    await transport.close()
