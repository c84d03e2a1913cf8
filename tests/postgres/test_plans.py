"""How PostgreSQL finds rows: each through its whole key, whatever the tables hold and whoever looks at them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from lockstep.core.changes import ChunkRow, CounterRow, Drop, MovedRow, PartitionRow, RequestRow
from lockstep.core.ids import ChunkId, EntityNumber, GrantNumber
from lockstep.storage.postgres import PostgresStore
from lockstep.storage.postgres.session import SESSION_SETTINGS
from lockstep.storage.queries import load_queries
from tests.contract.rows import E1, P, chunk_row, one_of_each, session_row, state_row
from tests.postgres.conftest import MakeStore, Query
from tests.postgres.database import SharedDatabase
from tests.postgres.server import NEWEST, OLDEST, running_server

QUERIES = load_queries("postgres/queries.sql")
BY_KEY = [n for n in QUERIES if n.startswith(("drop_", "load_", "put_"))]
OF_PARTITION = [n for n in QUERIES if n.startswith("read_")]


@pytest.fixture(scope="module", params=[OLDEST, NEWEST])
def database(request: pytest.FixtureRequest) -> Iterator[SharedDatabase]:
    """Tables in the oldest and in the newest PostgreSQL that there is for tests: they plan differently."""
    if request.param == NEWEST:
        yield request.getfixturevalue("shared_database")
        return
    with running_server(version=request.param) as server:
        older = SharedDatabase(server.dsn("postgres"), "plans")
        yield older
        older.close()


@pytest.fixture(scope="module", params=["empty", "full"])
def explaining(
    request: pytest.FixtureRequest, database: SharedDatabase
) -> Iterator[psycopg.Connection[Any]]:
    """A connection that plans as those of a store do, on tables that were never looked at, or that were when full."""
    database.empty()
    asyncio.run(_fill(database, 0 if request.param == "empty" else 1_000))
    with database.connect() as connection:
        if request.param == "full":
            connection.execute("ANALYZE")
        for name, value in SESSION_SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        yield connection
    database.empty()


async def _fill(database: SharedDatabase, count: int) -> None:
    store = database.store()
    await store.open(P, E1)
    rows = [row for number in range(1, count + 1) for row in one_of_each(1 + number % 7, number)]
    await store.commit(P, E1, [row for row in rows if not isinstance(row, MovedRow)])
    await store.close(P)


def plan_of(connection: psycopg.Connection[Any], query: str) -> Iterator[dict[str, Any]]:
    """Yield the nodes of the plan that serves any parameters."""
    cursor = psycopg.RawCursor(connection)
    cursor.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {query}".encode())
    row = cursor.fetchone()
    assert row is not None
    waiting = [row[0][0]["Plan"]]
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        yield node


def keys_of(connection: psycopg.Connection[Any], table: str) -> list[str]:
    """Return the columns of the primary key."""
    found = connection.execute(
        "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)"
        " WHERE indisprimary AND indrelid = to_regclass(%s)",
        (table,),
    )
    return [str(name) for (name,) in found]


def test_no_query_looks_at_rows_that_it_does_not_name(
    explaining: psycopg.Connection[Any],
) -> None:
    wrong = [
        (name, node)
        for name in (*BY_KEY, *OF_PARTITION)
        for node in plan_of(explaining, QUERIES[name])
        if "Relation Name" in node and "Scan" in node["Node Type"]
        if not _finds_what_is_named(name, node)
    ]

    assert wrong == []


def _finds_what_is_named(name: str, node: dict[str, Any]) -> bool:
    """Whether a node of a plan goes straight to rows of the partition, and to no others."""
    if node["Node Type"] == "Tid Scan":
        return "TID Cond" in node  # the rows that were looked up
    if node["Node Type"] not in ("Index Scan", "Index Only Scan"):
        return False
    if node["Relation Name"] == "chunks" and name.startswith("drop_entity_"):
        return True  # a look at all chunks of the partition, or at the entity's in all partitions
    return "Filter" not in node and "partition = " in node["Index Cond"]


def test_rows_are_found_through_their_whole_key(explaining: psycopg.Connection[Any]) -> None:
    """But for what is said of the messages of chunks: that goes with the chunk, all of it."""
    wrong = []
    for name in BY_KEY:
        if name.startswith("drop_entity_"):
            continue
        for node in plan_of(explaining, QUERIES[name]):
            if node["Node Type"] == "Index Scan":
                table, found_by = node["Relation Name"], node["Index Cond"]
                keys = ["partition", "chunk"] if table in ("gone", "moved") else keys_of(explaining, table)  # fmt: skip
                wrong += [(name, key, found_by) for key in keys if f"{key} = " not in found_by]
            elif "Join Filter" in node:
                wrong.append((name, "", node["Join Filter"]))

    assert wrong == []


async def test_an_old_snapshot_makes_no_commit_read_more(
    make_store: MakeStore, query: Query, postgres_dsn: str, schema: str
) -> None:
    """A dump holds one for hours; no dead row is cleaned up meanwhile, and each commit leaves some."""
    store = make_store(make_conninfo(postgres_dsn, application_name=schema))
    await store.open(P, E1)
    with psycopg.connect(postgres_dsn) as dump:
        dump.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        dump.execute("SELECT 1")
        await _commit(store, start=1, count=400)  # the indexes are as high as they will be
        first = await _blocks_read(store, query, start=1_000)
        await store.open(P, E1)
        await _commit(store, start=2_000, count=500)
        last = await _blocks_read(store, query, start=4_000)

    assert last < 1.1 * first


async def _blocks_read(store: PostgresStore, query: Query, *, start: int) -> int:
    """Return how many blocks of tables and indexes a hundred commits look at."""
    of_opening = await _blocks_of(store, query, start=start, count=0)
    return await _blocks_of(store, query, start=start, count=100) - of_opening


async def _blocks_of(store: PostgresStore, query: Query, *, start: int, count: int) -> int:
    """Return how many blocks an opening and some commits look at; a session tells when it ends."""
    await _ended(store, query)
    before = _blocks(query)
    await store.open(P, E1)
    await _commit(store, start=start, count=count)
    await _ended(store, query)
    return _blocks(query) - before


async def _ended(store: PostgresStore, query: Query) -> None:
    await store.close(P)
    while query("SELECT 1 FROM pg_stat_activity WHERE application_name = current_schema()"):
        query("SELECT pg_sleep(0.01)")


def _blocks(query: Query) -> int:
    ((blocks,),) = query(
        "SELECT sum(heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)::bigint"
        " FROM pg_statio_user_tables WHERE schemaname = current_schema()"
    )
    return int(blocks)


async def _commit(store: PostgresStore, *, start: int, count: int) -> None:
    """Do what a busy queue does: one chunk comes, one goes, the rest is written again."""
    for number in range(start, start + count):
        await store.commit(
            P,
            E1,
            [
                chunk_row(number, b"x"),
                Drop(ChunkRow, (number - 1,)),
                CounterRow(EntityNumber(1), number, 0),
                session_row("s", turn=number),
                state_row("s", b"state"),
                RequestRow("client", number, 1, "[]"),
                PartitionRow(number, ChunkId(number), GrantNumber(number)),
            ],
        )
