"""A store that forgets everything when its process ends.

For tests, and for a broker inside a user's own tests. It keeps the laws of the port, fencing included,
and gives what it stored back as rows, so that a reopened partition is built as from any other store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lockstep.core.changes import (
    AmendmentRow,
    ArrivalRow,
    CatalogueRow,
    Change,
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
from lockstep.core.ids import EntityNumber, PartitionEpoch, PartitionId
from lockstep.core.snapshot import Snapshot
from lockstep.storage.port import Key, StateKey, WriteSet, fenced


class _Tables:
    def __init__(self) -> None:
        self.epoch = PartitionEpoch(0, 0, 0)
        self.rows: dict[type[Row], dict[Key, Row]] = {}

    def of(self, table: type[Row]) -> dict[Key, Any]:
        return self.rows.setdefault(table, {})


class MemoryStore:
    """Keeps any number of partitions in memory."""

    def __init__(self) -> None:
        self._partitions: dict[PartitionId, _Tables] = {}

    async def open(self, partition: PartitionId, epoch: PartitionEpoch) -> Snapshot:
        """As the port says."""
        tables = self._partitions.setdefault(partition, _Tables())
        if tables.epoch > epoch:
            raise fenced(partition, epoch, tables.epoch)
        tables.epoch = epoch
        return _snapshot(tables)

    async def commit(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        """As the port says."""
        self.apply(partition, epoch, changes)

    def apply(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        """Commit at once, without an event loop.

        Raises:
            Fenced: The epoch is not the stored one; nothing was written.
        """
        tables = self._owned(partition, epoch)
        writes = WriteSet(changes)
        for table, keys in writes.dropped.items():
            for key in keys:
                tables.of(table).pop(key, None)
        dropped_chunks = {key[0] for key in writes.dropped.get(ChunkRow, ())}
        if dropped_chunks:
            for parts in (tables.of(GoneRow), tables.of(MovedRow)):
                for key in [k for k in parts if k[0] in dropped_chunks]:
                    del parts[key]
        for table, rows in writes.rows.items():
            tables.of(table).update(rows)
        for entity in writes.entities:
            _drop_entity(tables, entity)

    def _owned(self, partition: PartitionId, epoch: PartitionEpoch) -> _Tables:
        tables = self._partitions.setdefault(partition, _Tables())
        if tables.epoch != epoch:
            raise fenced(partition, epoch, tables.epoch)
        return tables

    async def load_chunks(
        self, partition: PartitionId, epoch: PartitionEpoch, chunks: Sequence[int]
    ) -> dict[int, tuple[bytes, ...]]:
        """As the port says."""
        rows = self._owned(partition, epoch).of(ChunkRow)
        return {chunk: rows[(chunk,)].messages for chunk in chunks if (chunk,) in rows}

    async def load_states(
        self, partition: PartitionId, epoch: PartitionEpoch, keys: Sequence[StateKey]
    ) -> dict[StateKey, bytes]:
        """As the port says."""
        rows = self._owned(partition, epoch).of(StateRow)
        return {key: rows[key].value for key in keys if key in rows}

    async def close(self, partition: PartitionId) -> None:
        """As the port says."""


def _drop_entity(tables: _Tables, entity: int) -> None:
    chunks = {key[0] for key, row in tables.of(ChunkRow).items() if row.entity == entity}
    for parts in (tables.of(GoneRow), tables.of(MovedRow)):
        for key in [k for k in parts if k[0] in chunks]:
            del parts[key]
    for table, rows in tables.rows.items():
        if table in (CatalogueRow, GoneRow, MovedRow, PartitionRow, RequestRow, ClientRow):
            continue
        for key in [
            k for k, row in rows.items() if getattr(row, "entity", None) == EntityNumber(entity)
        ]:
            del rows[key]


def _snapshot(tables: _Tables) -> Snapshot:
    chunks = sorted(tables.of(ChunkRow).values(), key=lambda row: row.chunk)
    return Snapshot(
        partition=tables.of(PartitionRow).get((0,), PartitionRow(0, 0, 0)),
        entities=list(tables.of(EntityRow).values()),
        catalogue=list(tables.of(CatalogueRow).values()),
        counters=list(tables.of(CounterRow).values()),
        chunks=[row._replace(messages=()) for row in chunks],
        gone=list(tables.of(GoneRow).values()),
        moved=list(tables.of(MovedRow).values()),
        sessions=list(tables.of(SessionRow).values()),
        states=[row._replace(value=None) for row in tables.of(StateRow).values()],
        locks=list(tables.of(LockRow).values()),
        counts=list(tables.of(CountRow).values()),
        dead_letters=list(tables.of(DeadLetterRow).values()),
        deferred=list(tables.of(DeferredRow).values()),
        delays=list(tables.of(DelayRow).values()),
        amendments=list(tables.of(AmendmentRow).values()),
        jobs=list(tables.of(JobRow).values()),
        arrivals=list(tables.of(ArrivalRow).values()),
        duplicates=list(tables.of(DuplicatesRow).values()),
        requests=list(tables.of(RequestRow).values()),
        clients=list(tables.of(ClientRow).values()),
    )
