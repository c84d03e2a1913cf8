"""A database that tests use one after the other, each one empty as a new one is: making tables anew takes long."""

from __future__ import annotations

from typing import Any

import psycopg

from lockstep.runtime.clock import SystemClock
from lockstep.storage.postgres import PostgresSettings, PostgresStore

_TABLES = """
SELECT relname FROM pg_class
WHERE relnamespace = to_regnamespace(%s) AND relkind = 'r' AND relname <> 'lockstep_store'
"""


class SharedDatabase:
    """The tables of a store in a schema of their own; the first store that is opened makes them."""

    def __init__(self, dsn: str, schema: str) -> None:
        self._dsn = dsn
        self._schema = schema
        self._connection = self.connect()
        self._connection.execute("SET client_min_messages = warning")
        self._emptying = ""

    def connect(self) -> psycopg.Connection[Any]:
        """Return an administrator's connection to the schema."""
        return psycopg.connect(self._dsn, autocommit=True, options=f"-c search_path={self._schema}")

    def store(self) -> PostgresStore:
        """Return another owner's store."""
        return PostgresStore([self._dsn], SystemClock(), PostgresSettings(schema=self._schema))

    def empty(self) -> None:
        """Forget every partition."""
        if not self._emptying:
            names = [str(row[0]) for row in self._connection.execute(_TABLES, (self._schema,))]
            self._emptying = "; ".join(f"DELETE FROM {name}" for name in names)
        if self._emptying:
            self._connection.execute(self._emptying)

    def close(self) -> None:
        """Drop the tables."""
        self._connection.execute(f'DROP SCHEMA IF EXISTS "{self._schema}" CASCADE')
        self._connection.close()
