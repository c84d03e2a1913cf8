"""A server that the tests of the client share, and clients in a broker namespace of each test's own."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from lockstep import LockstepClient as BlockingClient
from lockstep.aio import LockstepClient
from lockstep.runtime.ids import SystemIds
from tests.client.command_line import COMMAND, ENVIRONMENT, Command
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


@pytest.fixture
def where(shared_server: ServerProcess) -> list[str]:
    """Options that lead to the server, in a namespace of the test's own."""
    namespace = f"line-{SystemIds().client_id()[:12]}"
    return ["--server", f"127.0.0.1:{shared_server.port}", "--namespace", namespace, "--json"]


@pytest.fixture
def lockstep(where: list[str]) -> Command:
    """Run `lockstep --json …` in a namespace of the test's own."""

    def run(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *where, *words],
            env=ENVIRONMENT,
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
