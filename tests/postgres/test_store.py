"""What only PostgreSQL can show of the contract of stores."""

from __future__ import annotations

import asyncio
import logging

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from lockstep.core.changes import (
    ClientRow,
    CounterRow,
    CountRow,
    Drop,
    DropEntity,
    EntityRow,
    GoneRow,
    MovedRow,
    PartitionRow,
    Row,
    StateRow,
)
from lockstep.core.errors import InternalError, LockstepError, StoreRefused, StoreUnavailable
from lockstep.core.ids import EntityNumber, PartitionId
from lockstep.runtime.clock import SystemClock
from lockstep.storage.postgres.session import translated
from tests.contract.rows import (
    E1,
    E2,
    P,
    as_loaded,
    chunk_row,
    one_of_each,
    rows_of,
    session_row,
    state_row,
)
from tests.postgres.conftest import MakeStore, Query


async def test_a_commit_that_fails_half_way_changes_nothing_and_the_next_one_works(
    make_store: MakeStore,
) -> None:
    """A chunk is written once and never again, so the second one fails after other rows were written."""
    store = make_store()
    await store.open(P, E1)
    await store.commit(P, E1, one_of_each())

    with pytest.raises(InternalError):
        await store.commit(P, E1, [session_row("other"), chunk_row(1, b"again")])

    await store.commit(P, E1, [session_row("s", turn=9), CountRow(EntityNumber(5), 1, 1)])
    kept = [row for row in one_of_each() if row.key != (1, "s") or isinstance(row, StateRow)]
    expected = [*kept, session_row("s", turn=9), CountRow(EntityNumber(5), 1, 1)]
    assert rows_of(await store.open(P, E2)) == as_loaded(expected)


async def test_rows_that_are_rewritten_are_stored_once(make_store: MakeStore, query: Query) -> None:
    """Their key is not the database's; the store must know which row to replace, after an opening too."""
    for turn, store in enumerate([make_store(), make_store(), make_store()]):
        await store.open(P, E1)
        for again in (1, 2):
            await store.commit(
                P, E1, [session_row("s", turn=10 * turn + again), state_row("s", b"%d" % turn)]
            )

    assert query("SELECT entity, turn FROM sessions") == [(1, 22)]
    assert query("SELECT value FROM states") == [(b"2",)]
    assert query("SELECT count(*) FROM progress") == [(1,)]


async def test_what_goes_leaves_no_row_in_any_table(make_store: MakeStore, query: Query) -> None:
    store = make_store()
    await store.open(P, E1)
    await store.commit(P, E1, one_of_each())

    await store.commit(P, E1, [DropEntity(EntityNumber(1)), Drop(ClientRow, ("client 1",))])

    tables = query(
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    )
    left = {name for (name,) in tables if query(f"SELECT 1 FROM {name}")}
    assert left == {"lockstep_store", "partitions", "progress", "catalogue", "requests"}


async def test_partitions_of_one_database_do_not_touch_each_others_rows(
    make_store: MakeStore,
) -> None:
    store, neighbour = make_store(), PartitionId(2)
    for partition in (P, neighbour):
        await store.open(partition, E1)
        await store.commit(partition, E1, one_of_each())

    with_their_entity = (EntityRow, CounterRow, GoneRow, MovedRow, PartitionRow)
    alone = [row for row in one_of_each() if not isinstance(row, with_their_entity)]
    await store.commit(P, E1, [Drop(type(row), row.key) for row in alone])
    await store.commit(P, E1, [DropEntity(EntityNumber(1))])

    assert rows_of(await store.open(neighbour, E2)) == as_loaded(one_of_each())


async def test_a_body_that_does_not_match_its_checksum_is_refused(
    make_store: MakeStore, query: Query
) -> None:
    store = make_store()
    await store.open(P, E1)
    await store.commit(P, E1, [chunk_row(1, b"one", b"two"), chunk_row(2, b"sound")])
    query("UPDATE chunks SET bodies = 'onetwO'::bytea WHERE chunk = 1")

    with pytest.raises(StoreRefused, match="checksum"):
        await store.load_chunks(P, E1, [2, 1])

    assert await store.load_chunks(P, E1, [2]) == {2: (b"sound",)}


async def test_a_database_that_cannot_be_written_to_is_no_refusal_for_good(
    make_store: MakeStore, postgres_dsn: str
) -> None:
    """A primary that became a standby; after the fail-over the same names lead to another one."""
    read_only = "-c default_transaction_read_only=on"
    dsn = make_conninfo(postgres_dsn, options=read_only, target_session_attrs="any")
    await make_store().open(P, E1)

    with pytest.raises(StoreUnavailable):
        await make_store(dsn).open(P, E2)
    with pytest.raises(StoreUnavailable):
        await make_store(make_conninfo(postgres_dsn, options=read_only)).open(P, E2)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_an_opening_sees_the_commit_it_waited_for_whatever_the_database_isolates(
    make_store: MakeStore, query: Query, postgres_dsn: str, schema: str, isolation: str
) -> None:
    """An owner's last commit may still be on its way when the next one opens the partition."""
    default = isolation.replace(" ", r"\ ")
    dsn = make_conninfo(postgres_dsn, options=f"-c default_transaction_isolation={default}")
    first, second = make_store(dsn), make_store(dsn)
    await first.open(P, E1)
    rows: list[Row] = [session_row("s", turn=1), PartitionRow(1000, 0, 0)]

    with psycopg.connect(postgres_dsn) as somebody:
        somebody.execute(f'LOCK TABLE "{schema}".sessions IN EXCLUSIVE MODE'.encode())
        async with asyncio.TaskGroup() as tasks:
            committing = tasks.create_task(first.commit(P, E1, rows))
            await _until_waiting(query, 1)
            opening = tasks.create_task(second.open(P, E2))
            await _until_waiting(query, 2)
            somebody.rollback()

    assert committing.exception() is None
    assert rows_of(opening.result()) == as_loaded(rows)
    await second.commit(P, E2, [session_row("s", turn=2)])
    assert query("SELECT turn FROM sessions") == [(2,)]


async def _until_waiting(query: Query, count: int) -> None:
    """Wait until so many sessions wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'lockstep'"
    async with asyncio.timeout(20):
        while query(waiting) != [(count,)]:
            await SystemClock().sleep(5)


async def test_a_server_that_may_lose_commits_is_told_of(
    make_store: MakeStore, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "lockstep.storage")
    store = make_store()

    await store.open(P, E1)
    await store.open(P, E2)

    ((fsync, pages),) = query(
        "SELECT current_setting('fsync'), current_setting('full_page_writes')"
    )
    risky = {
        name for name, value in (("fsync", fsync), ("full_page_writes", pages)) if value == "off"
    }
    told = [record for record in caplog.records if record.message == "postgres.not_durable"]
    assert [record.__dict__["setting"] for record in told] == sorted(risky)


@pytest.mark.parametrize(
    ("state", "family"),
    [
        ("08006", StoreUnavailable),
        ("25006", StoreUnavailable),
        ("40001", StoreUnavailable),
        ("40P01", StoreUnavailable),
        ("53100", StoreUnavailable),
        ("55P03", StoreUnavailable),
        ("57014", StoreUnavailable),
        ("57P01", StoreUnavailable),
        ("58030", StoreUnavailable),
        ("XX001", StoreRefused),
        ("XX002", StoreRefused),
        ("42501", StoreRefused),
        ("23505", InternalError),
        ("42P01", InternalError),
        ("XX000", InternalError),
    ],
)
def test_the_state_of_an_error_says_what_to_do_next(
    state: str, family: type[LockstepError]
) -> None:
    assert type(translated(psycopg.errors.lookup(state)("text"))) is family


def test_an_error_of_the_connection_has_no_state_and_passes() -> None:
    assert isinstance(translated(psycopg.OperationalError("gone")), StoreUnavailable)
    assert isinstance(translated(psycopg.InterfaceError("closed")), StoreUnavailable)
