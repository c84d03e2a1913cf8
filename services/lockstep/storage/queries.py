"""Named SQL queries, read from the .sql files beside this module.

Here belongs the reading of query files. Never here: SQL text. The law: each query has a name and a line
of purpose, and rows are written by one statement of many rows, never one at a time.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib import resources

_ROWS = "{rows}"
_CONDITION = re.compile(r"\{(.+)\}")


@cache
def load_queries(file: str) -> dict[str, str]:
    """Return the queries of a file of sql/ by name."""
    text = resources.files("lockstep.storage").joinpath("sql", file).read_text(encoding="utf-8")
    queries: dict[str, str] = {}
    for part in text.split("-- name: ")[1:]:
        name, _, rest = part.partition("\n")
        lines = [line for line in rest.splitlines() if not line.startswith("--")]
        queries[name.strip()] = " ".join(line.strip() for line in lines if line.strip())
    return queries


def load_migrations(store: str) -> list[tuple[int, str]]:
    """Return the migrations of a store, in order, as (version, script)."""
    folder = resources.files("lockstep.storage").joinpath("sql", store)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name[:4].isdigit())
    return [(int(name[:4]), folder.joinpath(name).read_text(encoding="utf-8")) for name in names]


@lru_cache(maxsize=4096)
def with_rows(query: str, rows: int, columns: int) -> str:
    """Return a query for a number of rows: their values in a list, or a condition for each."""
    group = "(" + ",".join("?" * columns) + ")"
    values = query.replace(_ROWS, ",".join([group] * rows))
    return _CONDITION.sub(lambda found: " OR ".join([f"({found[1]})"] * rows), values)
