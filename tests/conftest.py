"""PostgreSQL and a Kubernetes API server for all tests that ask for them; the first one of each worker starts them.

LOCKSTEP_TEST_POSTGRES_DSN names another database to use: its user may make schemas there, and tests leave none.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import psycopg
import pytest

from lockstep.runtime.ids import SystemIds
from tests.kube.api_server import ApiServer
from tests.kube.program import programs
from tests.postgres.database import SharedDatabase
from tests.postgres.server import PostgresServer, running_server

DSN_VARIABLE = "LOCKSTEP_TEST_POSTGRES_DSN"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of a worker. Tests that stop a server start one of their own."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_dsn(request: pytest.FixtureRequest) -> str:
    """A database; each test takes a schema of its own in it."""
    named = os.environ.get(DSN_VARIABLE)
    if named:
        return named
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.make_database("lockstep_tests")


@pytest.fixture(scope="session")
def run_name() -> str:
    """A name that no other worker and no other run has."""
    return f"test_{SystemIds().client_id()[:12].lower()}"


@pytest.fixture
def make_schema(postgres_dsn: str, run_name: str) -> Iterator[Callable[[], str]]:
    """Returns names of schemas that nobody uses; what is made under them is dropped after the test."""
    made: list[str] = []

    def make() -> str:
        made.append(f"{run_name}_{next(_numbers)}")
        return made[-1]

    yield make
    if made:
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute("SET client_min_messages = warning")
            for name in made:
                connection.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


@pytest.fixture(scope="session")
def shared_database(postgres_dsn: str, run_name: str) -> Iterator[SharedDatabase]:
    """Tables that the tests of a worker use one after the other; see `postgres_database`."""
    database = SharedDatabase(postgres_dsn, f"{run_name}_shared")
    yield database
    database.close()


@pytest.fixture
def postgres_database(shared_database: SharedDatabase) -> SharedDatabase:
    """Tables without a row."""
    shared_database.empty()
    return shared_database


@pytest.fixture(scope="session")
def kube_api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The Kubernetes API server of a worker. Tests take namespaces of their own in it."""
    server = ApiServer(tmp_path_factory.mktemp("kube"), programs())
    try:
        yield server.start()
    finally:
        server.stop()
