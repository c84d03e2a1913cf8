"""A store whose calls are measured.

Here belongs how long each call to a store takes, and which ones fail. Never here: what to do about it. The
law: it changes neither answers nor errors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from lockstep.core.changes import Change
from lockstep.core.errors import Fenced, LockstepError
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.snapshot import Snapshot
from lockstep.runtime.clock import Clock
from lockstep.runtime.metrics import Metrics
from lockstep.storage.port import PartitionStore, StateKey

_Result = TypeVar("_Result")


class MeasuredStore:
    """Passes every call on to another store."""

    def __init__(self, store: PartitionStore, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics

    async def open(self, partition: PartitionId, epoch: PartitionEpoch) -> Snapshot:
        """As the port says."""
        return await self._measured("open", self._store.open(partition, epoch))

    async def commit(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        """As the port says."""
        try:
            await self._measured("commit", self._store.commit(partition, epoch, changes))
        except Fenced:
            self._metrics.fenced_writes.inc()
            raise

    async def load_chunks(
        self, partition: PartitionId, epoch: PartitionEpoch, chunks: Sequence[int]
    ) -> dict[int, tuple[bytes, ...]]:
        """As the port says."""
        call = self._store.load_chunks(partition, epoch, chunks)
        return await self._measured("load_chunks", call)

    async def load_states(
        self, partition: PartitionId, epoch: PartitionEpoch, keys: Sequence[StateKey]
    ) -> dict[StateKey, bytes]:
        """As the port says."""
        return await self._measured("load_states", self._store.load_states(partition, epoch, keys))

    async def close(self, partition: PartitionId) -> None:
        """As the port says."""
        await self._store.close(partition)

    async def _measured(self, op: str, call: Awaitable[_Result]) -> _Result:
        started_ms = self._clock.monotonic_ms()
        try:
            result = await call
        except LockstepError as error:
            self._metrics.storage_errors.labels(op, type(error).__name__).inc()
            raise
        taken_ms = self._clock.monotonic_ms() - started_ms
        self._metrics.storage_operation_duration_seconds.labels(op).observe(taken_ms / 1000)
        return result
