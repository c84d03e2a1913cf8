"""Whose a database is: what is made, what is refused and left as it is, and the record of the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from lockstep.core.changes import ArrivalRow, ChunkRow, Drop, Row
from lockstep.core.errors import Fenced, StoreRefused, StoreUnavailable
from lockstep.core.ids import EntityNumber, PartitionId
from lockstep.storage.postgres import ClusterRecord, PostgresSettings, PostgresStore
from lockstep.storage.queries import load_migrations
from tests.contract.rows import E1, E2, P, as_loaded, chunk_row, one_of_each, rows_of
from tests.postgres.conftest import MakeStore, Query
from tests.postgres.server import PostgresServer

P1 = PartitionId(1)
NEWEST = load_migrations("postgres")[-1][0]
CONTENT = """
SELECT c.relname, pg_relation_size(c.oid), c.relfilenode, obj_description(c.oid)
FROM pg_class c WHERE c.relnamespace = to_regnamespace(%s) ORDER BY 1
"""


@pytest.fixture
def databases(postgres_server: PostgresServer, make_schema: Callable[[], str]) -> Iterator[Any]:
    """Two databases of the test's own."""
    names = [make_schema() for _ in range(2)]
    yield [postgres_server.make_database(name) for name in names]
    with psycopg.connect(postgres_server.dsn("postgres"), autocommit=True) as connection:
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


# --- migrations ----------------------------------------------------------------------------------------


async def test_stores_that_start_at_the_same_time_make_the_tables_once(
    make_store: MakeStore, query: Query
) -> None:
    stores = [make_store() for _ in range(6)]

    records = await asyncio.gather(*(store.prepare(4) for store in stores))

    assert records == [ClusterRecord(4, 1)] * 6
    assert query("SELECT version FROM lockstep_store") == [(NEWEST,)]


async def test_a_schema_that_somebody_made_for_us_is_used(
    make_store: MakeStore, query: Query, schema: str
) -> None:
    query(f"CREATE SCHEMA {schema}")
    store = make_store()

    await store.open(P, E1)

    await store.commit(P, E1, one_of_each())
    assert query("SELECT count(*) FROM chunks") == [(1,)]


async def test_a_store_of_version_1_is_brought_up_once_by_several_that_start(
    make_store: MakeStore, query: Query
) -> None:
    """What version 1 stored is there, and what only a later version knows can be stored."""
    rows: list[Row] = [row for row in one_of_each() if not isinstance(row, ArrivalRow)]
    old = make_store()
    await old.prepare(4)
    await old.open(P, E1)
    await old.commit(P, E1, rows)
    query("DROP TABLE arrivals")
    query("UPDATE lockstep_store SET version = 1")

    stores = [make_store() for _ in range(4)]
    await asyncio.gather(*(store.prepare(4) for store in stores))

    assert query("SELECT version FROM lockstep_store") == [(NEWEST,)]
    assert rows_of(await stores[0].open(P, E2)) == as_loaded(rows)
    arrival = ArrivalRow(EntityNumber(1), 3, 7, "[[],null]")
    await stores[0].commit(P, E2, [arrival])
    assert rows_of(await stores[1].open(P, E2)) == as_loaded([*rows, arrival])


async def test_a_newer_schema_is_refused_and_not_written_to(
    make_store: MakeStore, query: Query, schema: str
) -> None:
    await make_store().open(P, E1)
    query("UPDATE lockstep_store SET version = 999")
    before = query(CONTENT, schema), query("SELECT * FROM partitions")

    with pytest.raises(StoreRefused, match="version 999") as refused:
        await make_store().open(P, E2)
    with pytest.raises(StoreRefused, match="version 999"):
        await make_store().prepare(4)

    assert refused.value.details == {"observed": "999", "limit": str(NEWEST)}
    assert (query(CONTENT, schema), query("SELECT * FROM partitions")) == before


async def test_the_tables_of_another_program_are_refused_and_not_written_to(
    make_store: MakeStore, query: Query, schema: str
) -> None:
    query(f"CREATE SCHEMA {schema}")
    query("CREATE TABLE chunks (note text)")
    query("INSERT INTO chunks VALUES ('keep me')")
    before = query(CONTENT, schema)

    for refused in (make_store().open(P, E1), make_store().prepare(4), make_store().generation()):
        with pytest.raises(StoreRefused, match="another program"):
            await refused

    assert query(CONTENT, schema) == before
    assert query("SELECT * FROM chunks") == [("keep me",)]


async def test_missing_rights_are_told(
    make_store: MakeStore, query: Query, postgres_dsn: str, schema: str
) -> None:
    query(f"CREATE ROLE {schema} LOGIN")
    try:
        store = make_store(psycopg.conninfo.make_conninfo(postgres_dsn, user=schema))

        with pytest.raises(StoreRefused, match="rights"):
            await store.open(P, E1)
    finally:
        query(f"DROP ROLE {schema}")


async def test_no_server_is_no_refusal(make_store: MakeStore) -> None:
    store = make_store("host=127.0.0.1 port=1 connect_timeout=2")

    with pytest.raises(StoreUnavailable):
        await store.open(P, E1)


# --- several databases -----------------------------------------------------------------------------------


async def test_partitions_are_spread_over_the_databases(
    make_store: MakeStore, databases: list[str]
) -> None:
    store = make_store(*databases)
    for number in range(4):
        await store.open(PartitionId(number), E1)
        await store.commit(PartitionId(number), E1, [chunk_row(number + 1, b"x")])

    again = make_store(*databases)

    stored = []
    for database in databases:
        with psycopg.connect(database, options=f"-c search_path={store._settings.schema}") as own:
            stored.append(own.execute("SELECT partition FROM chunks ORDER BY 1").fetchall())
    assert stored == [[(0,), (2,)], [(1,), (3,)]]
    for number in range(4):
        snapshot = await again.open(PartitionId(number), E2)
        assert [row.chunk for row in snapshot.chunks] == [number + 1]


@pytest.mark.parametrize("order", [(0,), (1, 0), (0, 0), (0, 1, 1)])
async def test_another_number_or_order_of_databases_is_refused(
    make_store: MakeStore, databases: list[str], order: tuple[int, ...]
) -> None:
    """Partitions do not move between databases."""
    before = make_store(*databases)
    await before.open(P, E1)
    await before.open(P1, E1)
    changed = make_store(*(databases[place] for place in order))

    with pytest.raises(StoreRefused, match="in the order"):
        await changed.open(PartitionId(len(order) - 1), E2)

    await before.commit(P, E1, one_of_each())
    await before.commit(P1, E1, one_of_each())


async def test_a_database_of_another_cluster_is_refused(
    make_store: MakeStore, databases: list[str], make_schema: Callable[[], str]
) -> None:
    mine, theirs = make_store(*databases), make_schema()
    await mine.open(P1, E1)
    other = make_store(*databases, schema=theirs)
    await other.open(P, E1)
    with psycopg.connect(databases[1]) as connection:  # as if the second DSN named their second one
        connection.execute(f"ALTER SCHEMA {mine._settings.schema} RENAME TO {theirs}".encode())

    with pytest.raises(StoreRefused, match="another cluster"):
        await other.open(P1, E2)


def test_a_store_without_a_database_is_a_mistake(make_store: MakeStore) -> None:
    with pytest.raises(ValueError, match="at least one"):
        PostgresStore([], make_store()._clock, PostgresSettings())


async def test_a_dump_holds_everything(
    make_store: MakeStore, databases: list[str], postgres_server: PostgresServer, schema: str
) -> None:
    before = make_store(databases[0])
    await before.open(P, E1)
    await before.commit(P, E1, one_of_each())
    source, target = (conninfo_to_dict(dsn)["dbname"] for dsn in databases)

    postgres_server.copy_schema(schema, str(source), str(target))

    after = make_store(databases[1])
    assert rows_of(await after.open(P, E2)) == as_loaded(one_of_each())
    await after.commit(
        P, E2, [Drop(type(row), row.key) for row in one_of_each() if isinstance(row, ChunkRow)]
    )
    await before.commit(P, E1, [])  # they are two now


# --- the record of the cluster ----------------------------------------------------------------------------


async def test_the_number_of_partitions_is_fixed_by_the_first_who_prepares(
    make_store: MakeStore,
) -> None:
    assert await make_store().prepare(16) == ClusterRecord(partitions=16, generation=1)
    assert await make_store().prepare(16) == ClusterRecord(partitions=16, generation=1)

    with pytest.raises(StoreRefused, match="created with 16 partitions") as refused:
        await make_store().prepare(8)

    assert refused.value.details == {"observed": "8", "configured": "16"}
    assert (await make_store().prepare(16)).partitions == 16


async def test_of_many_who_prepare_at_once_one_decides(make_store: MakeStore) -> None:
    preparing = [make_store().prepare(count) for count in (4, 8, 4, 8)]

    found = await asyncio.gather(*preparing, return_exceptions=True)

    decided = {record.partitions for record in found if isinstance(record, ClusterRecord)}
    refused = [error for error in found if isinstance(error, StoreRefused)]
    assert len(decided) == 1
    assert len(refused) == 2


async def test_each_next_generation_is_one_higher_and_stays(make_store: MakeStore) -> None:
    store = make_store()
    assert await store.generation() == 1

    raised = await asyncio.gather(*(make_store().next_generation() for _ in range(4)))

    assert sorted(raised) == [2, 3, 4, 5]
    assert await make_store().generation() == 5
    assert await make_store().prepare(16) == ClusterRecord(16, 5)


async def test_an_opening_under_a_low_epoch_names_what_helps_after_the_loss_of_etcd(
    make_store: MakeStore,
) -> None:
    """ADD-12."""
    await make_store().open(P, E2)

    with pytest.raises(Fenced, match="cluster next-generation"):
        await make_store().open(P, E1)
