"""What only SQLite can show of the contract: a commit that fails half-way."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lockstep.core.changes import ArrivalRow, Row
from lockstep.core.errors import InternalError, StoreRefused
from lockstep.core.ids import EntityNumber
from lockstep.storage.sqlite import SqliteStore, _groups
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


async def test_a_partition_whose_file_was_made_before_a_crash_is_noted_at_the_next_start(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path)
    await store.open(P, E1)
    await store.close(P)
    (tmp_path / "store.json").unlink()  # the power went between the file and the note

    await store.open(P, E2)
    await store.close(P)
    (tmp_path / "partition-0000.sqlite").unlink()

    with pytest.raises(StoreRefused, match="missing"):
        await store.open(P, E2)
    await store.close(P)


@pytest.mark.parametrize(
    ("rows", "most", "sizes"),
    [
        (0, 100, []),
        (64, 100, [64]),
        (65, 100, [64, 1]),
        (1_000, 4_096, [512, 256, 128, 64, 40]),
        (200, 100, [64, 64, 64, 8]),
        (200, 3, [3] * 66 + [2]),
    ],
)
def test_few_sizes_of_statements_serve_all_numbers_of_rows(
    rows: int, most: int, sizes: list[int]
) -> None:
    given = [(number,) for number in range(rows)]

    groups = list(_groups(given, most))

    assert [len(group) for group in groups] == sizes
    assert [row for group in groups for row in group] == given


async def test_a_file_of_version_1_is_brought_up(tmp_path: Path) -> None:
    """What version 1 stored is there, and what only a later version knows can be stored."""
    rows: list[Row] = [row for row in one_of_each() if not isinstance(row, ArrivalRow)]
    old = SqliteStore(tmp_path)
    await old.open(P, E1)
    await old.commit(P, E1, rows)
    await old.close(P)
    with closing(sqlite3.connect(tmp_path / f"partition-{P:04}.sqlite")) as file:
        file.executescript("DROP TABLE arrivals; PRAGMA user_version = 1;")

    store = SqliteStore(tmp_path)
    assert rows_of(await store.open(P, E2)) == as_loaded(rows)
    arrival = ArrivalRow(EntityNumber(1), 3, 7, "[[],null]")
    await store.commit(P, E2, [arrival])
    assert rows_of(await store.open(P, E2)) == as_loaded([*rows, arrival])
    await store.close(P)
