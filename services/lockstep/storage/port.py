"""The port of storage: what an owner asks of a store, and how a commit is folded.

Here belong the protocol, its errors and what every back end shares. Never here: a concrete store. The
laws (design sections 2 and 4): a commit is durable all or none, under the owner's epoch; `open` fences
every lower epoch; an owner whose epoch is not the stored one can neither write nor read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from lockstep.core.changes import Change, ChunkRow, Drop, DropEntity, GoneRow, MovedRow, Row
from lockstep.core.errors import Fenced
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.snapshot import Snapshot

Key = tuple[int | str, ...]
StateKey = tuple[int, str]


class PartitionStore(Protocol):
    """Keeps partitions. One owner calls it for one partition at a time; calls are carried out in order."""

    async def open(self, partition: PartitionId, epoch: PartitionEpoch) -> Snapshot:
        """Fence every lower epoch and return what is stored.

        Raises:
            Fenced: The stored epoch is higher; somebody else owns the partition.
            StoreRefused: The store is damaged, of a newer version, or not ours; nothing was written.
            StoreUnavailable: No answer; try again.
        """

    async def commit(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        """Make changes durable, all or none; return when they are synced.

        Raises:
            Fenced: The epoch is not the stored one; nothing was written.
            StoreUnavailable: Whether the changes are stored is not known; reopen.
        """

    async def load_chunks(
        self, partition: PartitionId, epoch: PartitionEpoch, chunks: Sequence[int]
    ) -> dict[int, tuple[bytes, ...]]:
        """Return the messages of chunks. A chunk that is not stored is left out.

        Raises:
            Fenced: The epoch is not the stored one.
            StoreRefused: A checksum does not match; the partition must stop.
            StoreUnavailable: No answer; try again.
        """

    async def load_states(
        self, partition: PartitionId, epoch: PartitionEpoch, keys: Sequence[StateKey]
    ) -> dict[StateKey, bytes]:
        """Return session states. A state that is not stored is left out.

        Raises:
            Fenced: The epoch is not the stored one.
            StoreUnavailable: No answer; try again.
        """

    async def close(self, partition: PartitionId) -> None:
        """Let go of a partition. Nothing that was committed is lost without it."""


class WriteSet:
    """The changes of one commit, folded: for each table the last row, or None, of each key.

    Attributes:
        rows: What to write, by row type and key.
        dropped: The keys to delete, by row type.
        entities: Entities that go with everything they have, after `rows` were written.
    """

    __slots__ = ("dropped", "entities", "rows")

    def __init__(self, changes: Iterable[Change]) -> None:
        self.rows: dict[type[Row], dict[Key, Row]] = {}
        self.dropped: dict[type[Row], set[Key]] = {}
        self.entities: list[int] = []
        for change in changes:
            if isinstance(change, Drop):
                self._drop(change.table, change.key)
            elif isinstance(change, DropEntity):
                self.entities.append(change.entity)
            else:
                self._put(change)

    def _put(self, row: Row) -> None:
        table = type(row)
        key = row.key
        rows = self.rows.get(table)
        if rows is None:
            self.rows[table] = {key: row}
        else:
            rows[key] = row
        dropped = self.dropped.get(table)
        if dropped:
            dropped.discard(key)

    def _drop(self, table: type[Row], key: Key) -> None:
        rows = self.rows.get(table)
        if rows:
            rows.pop(key, None)
        self.dropped.setdefault(table, set()).add(key)
        if table is ChunkRow:  # with a chunk goes what is said of its messages
            for parts in (self.rows.get(GoneRow, {}), self.rows.get(MovedRow, {})):
                for part in [k for k in parts if k[0] == key[0]]:
                    del parts[part]


def fenced(
    partition: PartitionId, epoch: PartitionEpoch, stored: PartitionEpoch, advice: str = ""
) -> Fenced:
    """Return the error for an owner whose epoch is not the stored one; `advice` is one sentence more."""
    told = f"Partition {partition} is owned under epoch {tuple(stored)}, not {tuple(epoch)}. Nothing was written."
    return Fenced(
        f"{told} {advice}".rstrip(),
        details={
            "partition": str(partition),
            "epoch": str(tuple(epoch)),
            "stored": str(tuple(stored)),
        },
    )
