"""How rows travel to PostgreSQL and back.

Here belong the tables, their columns, and arrays in PostgreSQL's binary format. Never here: connections, or when
a row is written. The laws: rows go as one array for each column; text that users give is stored as bytes of UTF-8,
because PostgreSQL's texts cannot hold U+0000.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, NamedTuple

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
    RequestRow,
    Row,
    SessionRow,
    StateRow,
)

_NUMBER = struct.Struct(">q")
_pack_number = struct.Struct(">iq").pack
_pack_length = struct.Struct(">i").pack
# https://www.postgresql.org/docs/current/catalog-pg-type.html; arrays as in array_recv of arrayfuncs.c
_BOOL, _BYTEA, _INT8, _TEXT = 16, 17, 20, 25
_pack_header = struct.Struct(">iiiii").pack
_NULL = _pack_length(-1)


class Column(Enum):
    """What a column holds."""

    NUMBER = "n"
    FLAG = "f"
    BYTES = "b"
    JSON = "j"
    USERS_TEXT = "u"


class Table(NamedTuple):
    """Where the rows of a type are.

    Attributes:
        name: Of the table, and in the names of its queries.
        make: Makes a row of the columns that were read, in their order.
        columns: In the order of the row.
        key_columns: How many of them are the key.
        is_rewritten: Each write is a row of its own, under a number; the one before is deleted by its number.
    """

    name: str
    make: Callable[[Sequence[Any]], Row]
    columns: tuple[Column, ...]
    key_columns: int
    is_rewritten: bool


def _table(
    name: str, row: Any, columns: str, key_columns: int, *, is_rewritten: bool = False
) -> Table:
    kinds = tuple(map(Column, columns))
    texts = [place for place, kind in enumerate(kinds) if kind is Column.USERS_TEXT]
    make = row._make

    def with_texts(values: Sequence[Any]) -> Row:
        read = list(values)
        for place in texts:
            if read[place] is not None:
                read[place] = str(read[place], "utf-8")
        made: Row = make(read)
        return made

    return Table(name, with_texts if texts else make, kinds, key_columns, is_rewritten)


def _chunk(values: Sequence[Any]) -> ChunkRow:
    return ChunkRow._make((*values, ()))


TABLES: dict[type[Row], Table] = {
    CatalogueRow: _table("catalogue", CatalogueRow, "nnj", 1),
    EntityRow: _table("entities", EntityRow, "nnj", 1),
    CounterRow: _table("counters", CounterRow, "nnn", 1, is_rewritten=True),
    # As `chunks.stored_chunk` gives them: with a checksum, and the bodies as one.
    ChunkRow: Table("chunks", _chunk, tuple(map(Column, "nnnnbjbbbb")), 1, is_rewritten=False),
    GoneRow: _table("gone", GoneRow, "nnn", 2),
    MovedRow: _table("moved", MovedRow, "nnnnnu", 2),
    SessionRow: _table("sessions", SessionRow, "nununnnbnnnnunu", 2, is_rewritten=True),
    StateRow: _table("states", StateRow, "nunb", 2, is_rewritten=True),
    LockRow: _table("locks", LockRow, "nnfbb", 2),
    CountRow: _table("delivery_counts", CountRow, "nnn", 2),
    DeadLetterRow: _table("dead_letters", DeadLetterRow, "nnnuun", 2),
    DeferredRow: _table("deferred", DeferredRow, "nnn", 2),
    DelayRow: _table("delays", DelayRow, "nnn", 2),
    AmendmentRow: _table("amendments", AmendmentRow, "nnj", 2),
    JobRow: _table("jobs", JobRow, "nnj", 2),
    ArrivalRow: _table("arrivals", ArrivalRow, "nnnj", 2),
    DuplicatesRow: _table("duplicates", DuplicatesRow, "nnnj", 2),
    RequestRow: _table("requests", RequestRow, "unnj", 2),
    ClientRow: _table("clients", ClientRow, "unn", 1),
}


def as_number(value: int) -> bytes:
    """Return a number as a parameter."""
    return _NUMBER.pack(value)


def number_from(value: bytes | None) -> int:
    """Return a number of a result."""
    assert value is not None, "no column of numbers is ever null"
    number: int = _NUMBER.unpack(value)[0]
    return number


def as_numbers(values: Sequence[int]) -> bytes:
    """Return an array of numbers as a parameter."""
    packed = [_pack_number(8, value) for value in values]
    return b"".join((_pack_header(1, 0, _INT8, len(packed), 1), *packed))


def as_columns(rows: Iterable[Sequence[Any]], columns: Sequence[Column]) -> list[bytes]:
    """Return rows as parameters: an array for each column. There is at least one row."""
    turned = zip(*rows, strict=True)
    return [_ENCODERS[kind](values) for kind, values in zip(columns, turned, strict=True)]


def _as_flags(values: Sequence[bool]) -> bytes:
    packed = [b"\0\0\0\1" + (b"\1" if value else b"\0") for value in values]
    return b"".join((_pack_header(1, 0, _BOOL, len(packed), 1), *packed))


def _as_bytes(values: Sequence[bytes]) -> bytes:
    return _packed(_BYTEA, values)


def _as_json(values: Sequence[str]) -> bytes:
    return _packed(_TEXT, [value.encode() for value in values])


def _as_users_text(values: Sequence[str | None]) -> bytes:
    return _packed(_BYTEA, [None if value is None else value.encode() for value in values])


def _packed(element: int, values: Sequence[bytes | None]) -> bytes:
    parts = [_pack_header(1, int(None in values), element, len(values), 1)]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts += (_pack_length(len(value)), value)
    return b"".join(parts)


_ENCODERS: dict[Column, Callable[[Sequence[Any]], bytes]] = {
    Column.NUMBER: as_numbers,
    Column.FLAG: _as_flags,
    Column.BYTES: _as_bytes,
    Column.JSON: _as_json,
    Column.USERS_TEXT: _as_users_text,
}
