"""How SQLite finds the rows that queries name by key: each through its whole key, however many others there are."""

from __future__ import annotations

import sqlite3

import pytest

from lockstep.storage.queries import load_migrations, load_queries, with_rows
from lockstep.storage.sqlite import KEYS_MAX

QUERIES = load_queries("sqlite/queries.sql")
BY_KEY = [
    name
    for name in QUERIES
    if name.startswith(("drop_", "load_")) and not name.startswith("drop_entity_")
]


def plan_of(query: str, *, rows: int, columns: int) -> list[str]:
    connection = sqlite3.connect(":memory:")
    try:
        for _, script in load_migrations("sqlite"):
            connection.executescript(script)
        statement = with_rows(query, rows, columns)
        values = (1,) * (rows * columns)
        return [
            str(line[3]) for line in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    finally:
        connection.close()


@pytest.mark.parametrize("rows", [1, 2, KEYS_MAX])
@pytest.mark.parametrize("name", BY_KEY)
def test_rows_are_found_through_their_whole_key(name: str, rows: int) -> None:
    query = QUERIES[name]
    columns = max(
        query.count("?"), 1
    )  # in the condition on one row; a list of values has one column

    plan = plan_of(query, rows=rows, columns=columns)

    searches = [line for line in plan if line.startswith("SEARCH")]
    assert searches
    assert all(line.count("=?") == columns for line in searches)
    scans = [line for line in plan if line.startswith("SCAN")]
    assert all("CONSTANT ROW" in line for line in scans)
