"""What only SQLite can show of the contract: a commit that fails half-way."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockstep.core.errors import InternalError
from lockstep.storage.sqlite import SqliteStore
from tests.contract.rows import E1, E2, P, as_loaded, chunk_row, one_of_each, rows_of, session_row


async def test_a_commit_that_fails_half_way_changes_nothing(tmp_path: Path) -> None:
    """A chunk is written once and never again, so the second one fails after other rows were written."""
    store = SqliteStore(tmp_path)
    await store.open(P, E1)
    await store.commit(P, E1, one_of_each())

    with pytest.raises(InternalError):
        await store.commit(P, E1, [session_row("written first"), chunk_row(1, b"again")])

    assert rows_of(await store.open(P, E1)) == as_loaded(one_of_each())
    await store.close(P)


async def test_a_commit_that_failed_leaves_the_store_usable(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    await store.open(P, E1)
    await store.commit(P, E1, [chunk_row(1, b"x")])
    with pytest.raises(InternalError):
        await store.commit(P, E1, [chunk_row(1, b"again")])

    await store.commit(P, E1, [session_row("s")])

    again = SqliteStore(tmp_path)
    assert rows_of(await again.open(P, E2)) == as_loaded([chunk_row(1, b"x"), session_row("s")])
    await store.close(P)
    await again.close(P)
