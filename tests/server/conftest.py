"""Servers for tests: started on temporary directories, ended with the test, their logs in its report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.server.server_process import MakeServer, ServerProcess

_LOG_CHARS = 6000
_running = pytest.StashKey[list[ServerProcess]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_running] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: Any = yield
    if report.failed:
        for server in item.config.stash[_running]:
            text = server.log()
            report.sections.append((f"log of {server.directory.name}", text[-_LOG_CHARS:]))
    return report


@contextmanager
def _servers(config: pytest.Config, directory: Path) -> Iterator[MakeServer]:
    made: list[ServerProcess] = []

    def make(name: str = "server", **options: Any) -> ServerProcess:
        server = ServerProcess(directory / name, **options)
        made.append(server)
        config.stash[_running].append(server)
        return server

    try:
        yield make
    finally:
        for server in made:
            server.close()
            config.stash[_running].remove(server)


@pytest.fixture
def make_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeServer]:
    """Make servers that are not started yet; `name` says which directory each one has."""
    with _servers(request.config, tmp_path) as make:
        yield make


@pytest.fixture
def server(make_server: MakeServer) -> ServerProcess:
    """A server of this test's own."""
    return make_server().start()


@pytest.fixture(scope="module")
def make_shared_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeServer]:
    """Make servers that all tests of a module use."""
    with _servers(request.config, tmp_path_factory.mktemp("shared")) as make:
        yield make
