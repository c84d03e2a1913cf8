"""Every store that the contract of `storage.port` is proved for.

A store comes as an opener: calling it again gives what another owner in the same place would have, on the
same data. A further back end is one more line here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lockstep.core.ids import PartitionId
from lockstep.storage.memory import MemoryStore
from lockstep.storage.port import PartitionStore
from lockstep.storage.sqlite import SqliteStore

Opener = Callable[[], PartitionStore]


def _memory(_directory: Path) -> Opener:
    store = MemoryStore()
    return lambda: store


def _sqlite(directory: Path) -> Opener:
    return lambda: SqliteStore(directory)


STORES: dict[str, Callable[[Path], Opener]] = {"memory": _memory, "sqlite": _sqlite}


@pytest.fixture(params=sorted(STORES))
async def another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Returns another owner's store on the same data; all are closed at the end."""
    opener = STORES[request.param](tmp_path)
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
