"""A server that the tests of the client share, and clients in a broker namespace of each test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from lockstep import LockstepClient as BlockingClient
from lockstep.aio import LockstepClient
from lockstep.runtime.ids import SystemIds
from tests.server.server_process import ServerProcess


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests of a run that do not restart it."""
    server = ServerProcess(tmp_path_factory.mktemp("client") / "server")
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that the test may kill."""
    server = ServerProcess(tmp_path_factory.mktemp("own") / "server")
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def address(shared_server: ServerProcess) -> str:
    """Where the server listens, with a namespace that nobody else uses."""
    namespace = f"client-{SystemIds().client_id()[:12]}"
    return f"Endpoint=lockstep://127.0.0.1:{shared_server.port};Namespace={namespace}"


@pytest.fixture
async def client(address: str) -> AsyncIterator[LockstepClient]:
    """An asyncio client, closed after the test."""
    async with LockstepClient.from_connection_string(address) as opened:
        yield opened


@pytest.fixture
async def other(address: str) -> AsyncIterator[LockstepClient]:
    """A second client of the same namespace, over a connection of its own."""
    async with LockstepClient.from_connection_string(address) as opened:
        yield opened


@pytest.fixture
def blocking(address: str) -> Iterator[BlockingClient]:
    """A blocking client, closed after the test."""
    with BlockingClient.from_connection_string(address) as opened:
        yield opened
