"""A server, and a connection string as Azure writes it with a broker namespace of each test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lockstep.runtime.ids import SystemIds
from lockstep.servicebus import ServiceBusClient
from lockstep.servicebus.management import ServiceBusAdministrationClient
from tests.server.server_process import ServerProcess


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all tests of a run."""
    server = ServerProcess(tmp_path_factory.mktemp("servicebus") / "server")
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def connection_string(server: ServerProcess) -> str:
    """Where the server listens; the key is there because Azure's strings have one."""
    namespace = f"azure-{SystemIds().client_id()[:12]}"
    return (
        f"Endpoint=sb://127.0.0.1:{server.port}/;SharedAccessKeyName=Root;SharedAccessKey=none=;"
        f"UseDevelopmentEmulator=true;Namespace={namespace}"
    )


@pytest.fixture
def admin(connection_string: str) -> Iterator[ServiceBusAdministrationClient]:
    """An administration client, closed after the test."""
    with ServiceBusAdministrationClient.from_connection_string(connection_string) as opened:
        yield opened


@pytest.fixture
def client(connection_string: str) -> Iterator[ServiceBusClient]:
    """A blocking client, closed after the test."""
    with ServiceBusClient.from_connection_string(connection_string) as opened:
        yield opened
