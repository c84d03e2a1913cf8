"""What every store promises (`storage.port`): fencing, atomic commits, and what was committed comes back."""

from __future__ import annotations

import asyncio

import pytest

from lockstep.core.changes import (
    AmendmentRow,
    ArrivalRow,
    CatalogueRow,
    Change,
    ChunkRow,
    ClientRow,
    CountRow,
    DeadLetterRow,
    DeferredRow,
    DelayRow,
    Drop,
    DropEntity,
    DuplicatesRow,
    EntityRow,
    GoneRow,
    JobRow,
    LockRow,
    MovedRow,
    PartitionRow,
    RequestRow,
    Row,
    SessionRow,
    StateRow,
)
from lockstep.core.errors import Fenced
from lockstep.core.ids import ChunkId, EntityNumber, PartitionEpoch, PartitionId
from lockstep.storage.port import PartitionStore
from tests.contract.conftest import Opener
from tests.contract.rows import (
    E1,
    E2,
    MANY,
    P,
    as_loaded,
    chunk_row,
    lock_row,
    one_of_each,
    rows_of,
    session_row,
    state_row,
    table_rows,
)

HIGHER = [PartitionEpoch(1, 5, 1), PartitionEpoch(1, 6, 0), PartitionEpoch(2, 0, 0)]
LOWER = [PartitionEpoch(1, 4, 9), PartitionEpoch(0, 9, 9), PartitionEpoch(0, 0, 0)]


async def _reopened(store: PartitionStore) -> dict[type[Row], list[Row]]:
    return rows_of(await store.open(P, E2))


# --- opening and fencing ---------------------------------------------------------------------------


async def test_a_new_partition_is_empty(store: PartitionStore) -> None:
    assert rows_of(await store.open(P, E1)) == as_loaded([])


async def test_partitions_are_apart(store: PartitionStore) -> None:
    other = PartitionId(3)
    await store.open(P, E1)
    await store.open(other, E2)

    await store.commit(P, E1, [chunk_row(1, b"here")])
    await store.commit(other, E2, [chunk_row(1, b"there")])

    assert await store.load_chunks(P, E1, [1]) == {1: (b"here",)}
    assert await store.load_chunks(other, E2, [1]) == {1: (b"there",)}


@pytest.mark.parametrize("epoch", LOWER)
async def test_a_lower_epoch_cannot_open(another: Opener, epoch: PartitionEpoch) -> None:
    """Design section 4: a claimant that slept through a later claim must not fence the rightful owner."""
    owner = another()
    await owner.open(P, E1)

    with pytest.raises(Fenced) as refused:
        await another().open(P, epoch)

    assert refused.value.details["stored"] == "(1, 5, 0)"
    await owner.commit(P, E1, [chunk_row(1, b"x")])


@pytest.mark.parametrize("epoch", HIGHER)
async def test_a_higher_epoch_fences_the_one_before_in_this_order(
    another: Opener, epoch: PartitionEpoch
) -> None:
    """(etcd generation, create-revision, reopen counter), compared in that order."""
    before, after = another(), another()
    await before.open(P, E1)
    await after.open(P, epoch)

    with pytest.raises(Fenced):
        await before.commit(P, E1, [chunk_row(1, b"stale")])

    await after.commit(P, epoch, [chunk_row(2, b"fresh")])
    assert await after.load_chunks(P, epoch, [1, 2]) == {2: (b"fresh",)}


async def test_the_same_epoch_may_open_again(store: PartitionStore) -> None:
    await store.open(P, E1)
    await store.commit(P, E1, one_of_each())

    assert rows_of(await store.open(P, E1)) == as_loaded(one_of_each())

    await store.commit(P, E1, [chunk_row(2, b"x")])


@pytest.mark.parametrize("epoch", [*HIGHER, *LOWER])
async def test_only_the_stored_epoch_can_commit(
    store: PartitionStore, epoch: PartitionEpoch
) -> None:
    """A higher one that never opened is refused too: it has not read what it would overwrite."""
    await store.open(P, E1)

    with pytest.raises(Fenced) as refused:
        await store.commit(P, epoch, one_of_each())

    assert refused.value.details["partition"] == "0"
    assert rows_of(await store.open(P, E1)) == as_loaded([])


async def test_an_empty_commit_of_a_fenced_owner_is_refused(another: Opener) -> None:
    before, after = another(), another()
    await before.open(P, E1)
    await after.open(P, E2)

    with pytest.raises(Fenced):
        await before.commit(P, E1, [])


async def test_epochs_outlive_the_process(another: Opener) -> None:
    first = another()
    await first.open(P, E2)
    await first.close(P)

    with pytest.raises(Fenced):
        await another().open(P, E1)


async def test_a_refused_opening_leaves_everything_as_it_was(another: Opener) -> None:
    owner = another()
    await owner.open(P, E1)
    await owner.commit(P, E1, one_of_each())
    with pytest.raises(Fenced):
        await another().open(P, LOWER[0])

    assert rows_of(await owner.open(P, E1)) == as_loaded(one_of_each())


# --- commits -----------------------------------------------------------------------------------------


async def test_a_snapshot_is_what_was_committed(store: PartitionStore) -> None:
    rows = one_of_each()
    await store.open(P, E1)

    await store.commit(P, E1, rows)

    assert await _reopened(store) == as_loaded(rows)


async def test_what_was_committed_is_there_after_a_close(another: Opener) -> None:
    first = another()
    await first.open(P, E1)
    await first.commit(P, E1, one_of_each())
    await first.close(P)

    second = another()

    assert rows_of(await second.open(P, E2)) == as_loaded(one_of_each())
    assert await second.load_states(P, E2, [(1, "s")]) == {(1, "s"): b"\x00state"}


async def test_what_was_committed_is_there_without_a_close(another: Opener) -> None:
    """An owner that crashed."""
    first = another()
    await first.open(P, E1)
    await first.commit(P, E1, one_of_each())

    assert rows_of(await another().open(P, E2)) == as_loaded(one_of_each())


async def test_many_commits_add_up(store: PartitionStore) -> None:
    await store.open(P, E1)

    for number in range(1, 6):
        await store.commit(P, E1, one_of_each(entity=number, first=number))

    rows = [row for number in range(1, 6) for row in one_of_each(number, number)]
    kept = [row for row in rows if not isinstance(row, PartitionRow)]
    assert await _reopened(store) == as_loaded([*kept, PartitionRow(5_000, 5, 5)])


async def test_a_row_is_replaced_as_a_whole(store: PartitionStore) -> None:
    replaced: list[Row] = [
        EntityRow(EntityNumber(1), 9, "{}"),
        CatalogueRow(EntityNumber(1), 9, ""),
        GoneRow(ChunkId(1), 1, 2),
        session_row("s", turn=5)._replace(holder="", returned=b"", locked_until_ms=0),
        state_row("s", b""),
        lock_row(1)._replace(sequences=b"", locked_until_ms=b""),
        CountRow(EntityNumber(1), MANY, 8),
        DeadLetterRow(EntityNumber(1), MANY, 9, "", "", 0),
        RequestRow("client 1", MANY, 0, "[]"),
        ClientRow("client 1", 99, 99),
    ]
    await store.open(P, E1)
    await store.commit(P, E1, one_of_each())

    await store.commit(P, E1, replaced)

    found = await _reopened(store)
    for row in as_loaded(replaced).values():
        assert all(one in found[type(one)] for one in row if not isinstance(one, PartitionRow))
    assert [len(found[type(row)]) for row in replaced] == [1, 1, 1, 1, 1, 2, 1, 1, 1, 1]


async def test_the_last_change_of_a_key_counts(store: PartitionStore) -> None:
    await store.open(P, E1)
    old, new = session_row("s", turn=1), session_row("s", turn=2)
    gone, kept = (SessionRow, (1, "gone")), (SessionRow, (1, "kept"))

    await store.commit(
        P,
        E1,
        [
            old,
            new,
            session_row("gone"),
            Drop(*gone),
            Drop(*kept),
            session_row("kept"),
            PartitionRow(1, 1, 1),
            PartitionRow(2, 2, 2),
        ],
    )

    found = await _reopened(store)
    assert found[SessionRow] == [session_row("kept"), new]
    assert found[PartitionRow] == [PartitionRow(2, 2, 2)]


async def test_the_counters_of_a_partition_are_kept_by_commits_without_them(
    store: PartitionStore,
) -> None:
    await store.open(P, E1)
    await store.commit(P, E1, [PartitionRow(5_000, 6, 7)])

    await store.commit(P, E1, [session_row("s")])

    assert table_rows(await store.open(P, E2), PartitionRow) == [PartitionRow(5_000, 6, 7)]


@pytest.mark.parametrize(
    "drop",
    [
        Drop(ChunkRow, (1,)),
        Drop(CatalogueRow, (1,)),
        Drop(SessionRow, (1, "s")),
        Drop(StateRow, (1, "s")),
        Drop(LockRow, (1, 1)),
        Drop(CountRow, (1, MANY)),
        Drop(DeadLetterRow, (1, MANY)),
        Drop(DeferredRow, (1, MANY)),
        Drop(DelayRow, (1, MANY)),
        Drop(AmendmentRow, (1, MANY)),
        Drop(JobRow, (1, 1)),
        Drop(ArrivalRow, (1, 15)),
        Drop(DuplicatesRow, (1, 1)),
        Drop(RequestRow, ("client 1", MANY)),
        Drop(ClientRow, ("client 1",)),
    ],
    ids=lambda drop: drop.table.__name__,
)
async def test_a_dropped_row_goes_and_all_others_stay(store: PartitionStore, drop: Drop) -> None:
    await store.open(P, E1)
    rows: list[Row] = [
        *(row for row in one_of_each() if not isinstance(row, PartitionRow)),
        *one_of_each(2, 2),
    ]
    await store.commit(P, E1, rows)

    await store.commit(P, E1, [drop])

    goes = [(drop.table, drop.key)]
    if drop.table is ChunkRow:
        goes += [(GoneRow, (1, 1)), (MovedRow, (1, MANY)), (MovedRow, (1, MANY + 1))]
    kept = [row for row in rows if (type(row), row.key) not in goes]
    assert await _reopened(store) == as_loaded(kept)


async def test_dropping_what_is_not_there_does_nothing(store: PartitionStore) -> None:
    await store.open(P, E1)

    await store.commit(
        P, E1, [Drop(SessionRow, (1, "s")), Drop(ChunkRow, (1,)), DropEntity(EntityNumber(5))]
    )

    assert await _reopened(store) == as_loaded([])


async def test_a_chunk_that_is_dropped_in_the_commit_that_moves_its_messages_leaves_nothing(
    store: PartitionStore,
) -> None:
    await store.open(P, E1)
    await store.commit(P, E1, [chunk_row(1, b"1")])

    moved = MovedRow(ChunkId(1), MANY, 0, 0, 7, None)
    await store.commit(P, E1, [moved, Drop(ChunkRow, (1,))])

    found = await _reopened(store)
    assert (found[ChunkRow], found[MovedRow]) == ([], [])


async def test_a_dropped_chunk_takes_its_holes_with_it(store: PartitionStore) -> None:
    await store.open(P, E1)
    await store.commit(
        P,
        E1,
        [
            chunk_row(1, b"1", b"2"),
            chunk_row(2, b"1", b"2"),
            GoneRow(ChunkId(1), 0, 0),
            GoneRow(ChunkId(2), 1, 1),
        ],
    )

    await store.commit(P, E1, [GoneRow(ChunkId(1), 1, 1), Drop(ChunkRow, (1,))])

    found = await _reopened(store)
    assert [row.key for row in found[ChunkRow]] == [(2,)]
    assert found[GoneRow] == [GoneRow(ChunkId(2), 1, 1)]
    assert await store.load_chunks(P, E2, [1, 2]) == {2: (b"1", b"2")}


async def test_a_commit_that_cannot_be_written_changes_nothing(store: PartitionStore) -> None:
    """All or none: a fenced commit of every kind of change."""
    await store.open(P, E1)
    await store.commit(P, E1, one_of_each())
    changes: list[Change] = [
        *one_of_each(entity=2, first=2),
        session_row("s", turn=9),
        Drop(StateRow, (1, "s")),
        Drop(ChunkRow, (1,)),
        Drop(CatalogueRow, (1,)),
        DropEntity(EntityNumber(1)),
    ]

    with pytest.raises(Fenced):
        await store.commit(P, E2, changes)

    assert rows_of(await store.open(P, E1)) == as_loaded(one_of_each())


async def test_more_rows_than_one_statement_takes(store: PartitionStore) -> None:
    """SQLite takes some 32,000 parameters in a statement."""
    count = 12_000
    await store.open(P, E1)
    chunks = [chunk_row(number, b"x", b"y") for number in range(1, count + 1)]
    holes = [GoneRow(ChunkId(number), 0, 0) for number in range(1, count + 1)]
    sessions = [session_row(f"s{number:05}") for number in range(count)]

    await store.commit(P, E1, [*chunks, *holes, *sessions])
    found = await _reopened(store)
    assert (len(found[ChunkRow]), len(found[GoneRow]), len(found[SessionRow])) == (count,) * 3
    loaded = await store.load_chunks(P, E2, range(1, count + 1))
    assert len(loaded) == count

    await store.commit(P, E2, [Drop(ChunkRow, (number,)) for number in range(2, count + 1)])
    await store.commit(P, E2, [Drop(SessionRow, (1, f"s{n:05}")) for n in range(1, count)])
    left = rows_of(await store.open(P, E2))
    assert [row.key for row in left[ChunkRow]] == [(1,)]
    assert left[GoneRow] == [GoneRow(ChunkId(1), 0, 0)]
    assert [row.key for row in left[SessionRow]] == [(1, "s00000")]


# --- entities that go ----------------------------------------------------------------------------------


async def test_a_dropped_entity_goes_with_everything_and_others_stay(
    store: PartitionStore,
) -> None:
    """What the catalogue and the callers remember stays: that is the catalogue's and the callers' affair."""
    await store.open(P, E1)
    await store.commit(P, E1, [*one_of_each(), *one_of_each(2, 2)])

    await store.commit(P, E1, [DropEntity(EntityNumber(1))])

    stays = [r for r in one_of_each() if isinstance(r, CatalogueRow | RequestRow | ClientRow)]
    assert await _reopened(store) == as_loaded([*stays, *one_of_each(2, 2)])
    assert await store.load_chunks(P, E2, [1]) == {}
    assert await store.load_states(P, E2, [(1, "s")]) == {}


@pytest.mark.parametrize("place", ["first", "last", "middle"])
async def test_a_dropped_entity_takes_the_rows_of_its_own_commit_wherever_they_stand(
    store: PartitionStore, place: str
) -> None:
    await store.open(P, E1)
    rows: list[Change] = list(one_of_each())
    drop = DropEntity(EntityNumber(1))
    at = {"first": 0, "last": len(rows), "middle": len(rows) // 2}[place]

    await store.commit(P, E1, [*rows[:at], drop, *rows[at:], *one_of_each(2, 2)])

    stays = [r for r in one_of_each() if isinstance(r, CatalogueRow | RequestRow | ClientRow)]
    assert await _reopened(store) == as_loaded([*stays, *one_of_each(2, 2)])


async def test_a_dropped_entity_takes_a_hole_that_the_same_commit_made_in_an_earlier_chunk(
    store: PartitionStore,
) -> None:
    await store.open(P, E1)
    await store.commit(P, E1, [chunk_row(1, b"1", b"2")])

    await store.commit(P, E1, [GoneRow(ChunkId(1), 0, 0), DropEntity(EntityNumber(1))])

    assert await _reopened(store) == as_loaded([])


async def test_a_dropped_entity_and_drops_of_its_rows_go_together(store: PartitionStore) -> None:
    await store.open(P, E1)
    await store.commit(P, E1, [*one_of_each(), *one_of_each(2, 2)])

    await store.commit(
        P,
        E1,
        [
            Drop(SessionRow, (1, "s")),
            DropEntity(EntityNumber(1)),
            Drop(ChunkRow, (1,)),
            Drop(SessionRow, (2, "s")),
        ],
    )

    found = await _reopened(store)
    assert found[SessionRow] == []
    assert [row.key for row in found[ChunkRow]] == [(2,)]
    assert found[GoneRow] == [GoneRow(ChunkId(2), 1, 1)]


# --- calls at the same time, and closing ------------------------------------------------------------


async def test_calls_are_carried_out_in_the_order_they_were_made(store: PartitionStore) -> None:
    await store.open(P, E1)

    async with asyncio.TaskGroup() as group:
        for turn in range(20):
            group.create_task(store.commit(P, E1, [session_row("s", turn=turn)]))

    found = await _reopened(store)
    assert found[SessionRow] == [session_row("s", turn=19)]


async def test_closing_twice_and_closing_what_was_never_opened_does_nothing(
    store: PartitionStore,
) -> None:
    await store.close(P)
    await store.open(P, E1)

    await store.close(P)
    await store.close(P)


async def test_a_closed_partition_can_be_opened_again(store: PartitionStore) -> None:
    await store.open(P, E1)
    await store.commit(P, E1, one_of_each())
    await store.close(P)

    assert rows_of(await store.open(P, E1)) == as_loaded(one_of_each())
    await store.commit(P, E1, [chunk_row(5, b"x")])
