"""Rows for the tests of stores, and how a snapshot is compared."""

from __future__ import annotations

from array import array
from typing import Any

from lockstep.core.changes import (
    AmendmentRow,
    ArrivalRow,
    CatalogueRow,
    ChunkRow,
    ClientRow,
    CounterRow,
    CountRow,
    DeadLetterRow,
    DeferredRow,
    DelayRow,
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
from lockstep.core.ids import ChunkId, EntityNumber, GrantNumber, PartitionEpoch, PartitionId
from lockstep.core.snapshot import Snapshot

P = PartitionId(0)
E1 = PartitionEpoch(1, 5, 0)
E2 = PartitionEpoch(1, 6, 0)
MANY = 2**62 + 1

_FIELDS: dict[type[Row], str] = {
    PartitionRow: "partition",
    EntityRow: "entities",
    CatalogueRow: "catalogue",
    CounterRow: "counters",
    ChunkRow: "chunks",
    GoneRow: "gone",
    MovedRow: "moved",
    SessionRow: "sessions",
    StateRow: "states",
    LockRow: "locks",
    CountRow: "counts",
    DeadLetterRow: "dead_letters",
    DeferredRow: "deferred",
    DelayRow: "delays",
    AmendmentRow: "amendments",
    JobRow: "jobs",
    ArrivalRow: "arrivals",
    DuplicatesRow: "duplicates",
    RequestRow: "requests",
    ClientRow: "clients",
}


def chunk_row(chunk: int, *messages: bytes, entity: int = 1, sessions: str = "") -> ChunkRow:
    """Return a chunk of some messages."""
    sizes = array("I", map(len, messages)).tobytes()
    return ChunkRow(
        ChunkId(chunk),
        EntityNumber(entity),
        chunk * 10,
        77,
        sizes,
        sessions,
        array("q", (5,)).tobytes(),
        b"",
        messages,
    )


def session_row(session_id: str, *, entity: int = 1, turn: int = 0) -> SessionRow:
    """Return a held session."""
    returned = array("q", [3, MANY]).tobytes()
    return SessionRow(
        EntityNumber(entity),
        session_id,
        4,
        "holder ö",
        MANY,
        9,
        12,
        returned,
        turn,
        3,
        MANY,
        8,
        "ipv6:[::1]:5",
        2,
        "expired",
    )


def state_row(session_id: str, value: bytes, *, entity: int = 1) -> StateRow:
    """Return a state."""
    return StateRow(EntityNumber(entity), session_id, len(value), value)


def lock_row(grant: int, *, entity: int = 1, dead_letter: bool = False) -> LockRow:
    """Return the locks of one receive."""
    numbers = array("q", [1, 2, MANY]).tobytes()
    return LockRow(EntityNumber(entity), GrantNumber(grant), dead_letter, numbers, numbers)


def one_of_each(entity: int = 1, first: int = 1) -> list[Row]:
    """Return a row for each table; with other numbers they are other rows."""
    number = EntityNumber(entity)
    return [
        EntityRow(number, first, '{"name": "ö"}'),
        CatalogueRow(number, first, '{"name": "ö"}'),
        CounterRow(number, MANY, first),
        chunk_row(first, b"one", b"", bytes(range(256)), entity=entity, sessions='["s"]'),
        GoneRow(ChunkId(first), 1, 1),
        MovedRow(ChunkId(first), MANY, 0, 0, 7, None),
        MovedRow(ChunkId(first), MANY + 1, 2, 2, 8, "ö"),
        session_row("s", entity=entity),
        state_row("s", b"\x00state", entity=entity),
        lock_row(first, entity=entity),
        lock_row(first + 100, entity=entity, dead_letter=True),
        CountRow(number, MANY, 7),
        DeadLetterRow(number, MANY, first, "reason ö", "description\n", 5),
        DeferredRow(number, MANY, first),
        DelayRow(number, MANY, MANY),
        AmendmentRow(number, MANY, '["ö"]'),
        JobRow(number, first, '{"kind": "ö"}'),
        ArrivalRow(number, 15, MANY, '[[1],"ö"]'),
        DuplicatesRow(number, first, MANY, '[[null,"ö",3]]'),
        RequestRow(f"client {first}", MANY, MANY, '["send",1,3]'),
        ClientRow(f"client {first}", 12, 34),
        PartitionRow(1_000 * first, first, first),
    ]


def rows_of(snapshot: Snapshot) -> dict[type[Row], list[Row]]:
    """Return what a snapshot holds, by table and in the order of keys; chunks in the order they came."""
    found: dict[type[Row], list[Row]] = {}
    for table, name in _FIELDS.items():
        rows: Any = getattr(snapshot, name)
        rows = [rows] if table is PartitionRow else list(rows)
        found[table] = rows if table is ChunkRow else sorted(rows, key=lambda row: row.key)
    return found


def as_loaded(rows: list[Row]) -> dict[type[Row], list[Row]]:
    """Return what a snapshot should hold: chunks without messages, states without their bytes."""
    expected: dict[type[Row], list[Row]] = {table: [] for table in _FIELDS}
    for row in rows:
        if isinstance(row, ChunkRow):
            row = row._replace(messages=())
        elif isinstance(row, StateRow):
            row = row._replace(value=None)
        expected[type(row)].append(row)
    if not expected[PartitionRow]:
        expected[PartitionRow] = [PartitionRow(0, 0, 0)]
    return {
        table: sorted(of_table, key=lambda row: row.key) for table, of_table in expected.items()
    }


def table_rows(snapshot: Snapshot, table: type[Row]) -> list[Row]:
    """Return one table of a snapshot."""
    return rows_of(snapshot)[table]
