"""Every store that the contract of `storage.port` is proved for.

A store comes as an opener: calling it again gives what another owner in the same place would have, on the
same data. A further back end is one more line here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lockstep.core.ids import PartitionId
from lockstep.runtime.clock import SystemClock
from lockstep.storage.memory import MemoryStore
from lockstep.storage.port import PartitionStore
from lockstep.storage.postgres import PostgresSettings, PostgresStore
from lockstep.storage.sqlite import SqliteStore

Opener = Callable[[], PartitionStore]


def _memory(_request: pytest.FixtureRequest) -> Opener:
    store = MemoryStore()
    return lambda: store


def _sqlite(request: pytest.FixtureRequest) -> Opener:
    directory: Path = request.getfixturevalue("tmp_path")
    return lambda: SqliteStore(directory)


def _postgres(request: pytest.FixtureRequest) -> Opener:
    dsn: str = request.getfixturevalue("postgres_dsn")
    settings = PostgresSettings(schema=request.getfixturevalue("make_schema")())
    return lambda: PostgresStore([dsn], SystemClock(), settings)


STORES: dict[str, Callable[[pytest.FixtureRequest], Opener]] = {
    "memory": _memory,
    "postgres": _postgres,
    "sqlite": _sqlite,
}


@pytest.fixture(params=sorted(STORES))
async def another(request: pytest.FixtureRequest) -> AsyncIterator[Opener]:
    """Returns another owner's store on the same data; all are closed at the end."""
    opener = STORES[request.param](request)
    opened: list[PartitionStore] = []

    def open_store() -> PartitionStore:
        opened.append(opener())
        return opened[-1]

    yield open_store
    for store in opened:
        for number in range(4):
            await store.close(PartitionId(number))


@pytest.fixture
def store(another: Opener) -> PartitionStore:
    """The store of the first owner."""
    return another()
