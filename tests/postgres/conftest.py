"""Stores on PostgreSQL that end with their test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from lockstep.core.ids import PartitionId
from lockstep.runtime.clock import Clock, SystemClock
from lockstep.storage.postgres import PostgresSettings, PostgresStore

MakeStore = Callable[..., PostgresStore]
Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def schema(make_schema: Callable[[], str]) -> str:
    """A schema of the test's own, not made yet."""
    return make_schema()


@pytest.fixture
async def make_store(postgres_dsn: str, schema: str) -> AsyncIterator[MakeStore]:
    """Makes stores, each one another owner's, by default in the schema of the test."""
    made: list[PostgresStore] = []

    def make(*dsns: str, clock: Clock | None = None, **settings: Any) -> PostgresStore:
        settings.setdefault("schema", schema)
        store = PostgresStore(
            dsns or [postgres_dsn], clock or SystemClock(), PostgresSettings(**settings)
        )
        made.append(store)
        return store

    yield make
    for store in made:
        for number in range(4):
            await store.close(PartitionId(number))


@pytest.fixture
def query(postgres_dsn: str, schema: str) -> Iterator[Query]:
    """Runs statements in the schema of the test, as an administrator would, and returns the rows."""
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", (schema,))

        def run(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
            cursor = connection.execute(statement.encode(), parameters or None)
            with suppress(psycopg.ProgrammingError):  # no rows
                return cursor.fetchall()
            return []

        yield run
