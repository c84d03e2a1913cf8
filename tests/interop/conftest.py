"""A server, a client in Python, and the program in Go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep import LockstepClient
from tests.interop import go_program
from tests.server.server_process import ServerProcess


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for all tests of a run."""
    server = ServerProcess(tmp_path_factory.mktemp("interop") / "server")
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[LockstepClient]:
    """A client of the server."""
    with LockstepClient(f"127.0.0.1:{server.port}") as opened:
        yield opened


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in Go. Skips where there is no Go; says in CI, where there is one, that it must work."""
    try:
        return go_program.build(tmp_path_factory.mktemp("go"))
    except go_program.NoGo as reason:
        if os.environ.get("CI") and go_program.is_installed():
            raise
        pytest.skip(f"The client in Go was not tested: {reason}.")
