"""A partition that is kept in memory, in SQLite and in PostgreSQL, and must be the same in all three."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from lockstep.core import commands as c
from lockstep.core.changes import PartitionRow
from lockstep.core.decision import Decision
from lockstep.core.entity import QueueDefinition
from lockstep.core.errors import Fenced, LockstepError
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.snapshot import Snapshot, restore_partition
from lockstep.storage.port import PartitionStore
from lockstep.storage.sqlite import SqliteStore
from tests.postgres.database import SharedDatabase
from tests.properties.calls import assert_same
from tests.properties.dump import durable
from tests.properties.rig import PARTITION, Rig, finished

_Result = TypeVar("_Result")


class TripletRig(Rig):
    """A rig with two more partitions, fed with the same commands, which are kept in SQLite and in PostgreSQL."""

    database: ClassVar[SharedDatabase]

    def __init__(self, definition: QueueDefinition, limits: Limits) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.database.empty()
        self.others: list[PartitionStore] = [
            SqliteStore(Path(self.directory.name)),
            self.database.store(),
        ]
        super().__init__(definition, limits)

    def _run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        return self.runner.run(coroutine)

    def _restored(self, now_ms: int) -> Partition:
        self.siblings = []
        for store in self.others:
            stored = self._run(store.open(PARTITION, self.epoch))
            assert_same(_tables(stored), _tables(self.snapshot()))
            self._compare_contents(store, stored)
            self.siblings.append(restore_partition(PARTITION, self.limits, stored, now_ms))
        return super()._restored(now_ms)

    def _compare_contents(self, store: PartitionStore, stored: Snapshot) -> None:
        """Compare the messages and the states, which a snapshot leaves out."""
        chunks = [row.chunk for row in stored.chunks]
        states = [row.key for row in stored.states]
        for load, what in (("load_chunks", chunks), ("load_states", states)):
            assert self._run(getattr(store, load)(PARTITION, self.epoch, what)) == finished(
                getattr(self.store, load)(PARTITION, self.epoch, what)
            ), load

    def step(self, command: c.Command, now_ms: int) -> Decision:
        outcomes = [_outcome(sibling, command, now_ms) for sibling in self.siblings]
        try:
            decision = super().step(command, now_ms)
        except LockstepError as error:
            for refused in outcomes:
                _compare_refusals(refused, error)
            raise
        for sibling in outcomes:
            assert isinstance(sibling, Decision)
            assert sibling.changes == decision.changes
            assert repr(sibling.reply) == repr(decision.reply)
            assert (sibling.wake, sibling.events) == (decision.wake, decision.events)
        return decision

    def commit(self) -> None:
        for store in self.others:
            self._run(store.commit(PARTITION, self.epoch, self.pending))
        super().commit()

    def reopen(self, now_ms: int) -> None:
        deposed = self.epoch
        super().reopen(now_ms)
        for store in self.others:
            late = store.commit(PARTITION, deposed, [PartitionRow(now_ms, 10**6, 10**6)])
            with pytest.raises(Fenced):
                self._run(late)
            with pytest.raises(Fenced):
                self._run(store.load_states(PARTITION, deposed, []))

    def close(self) -> None:
        """Compare once more, and let go of the files and the connections."""
        try:
            self.commit()
            self.reopen(self.partition.last_time_ms)
            partition = durable(self.partition, reopened_ms=None)
            for sibling in self.siblings:
                assert_same(durable(sibling, reopened_ms=None), partition)
        finally:
            for store in self.others:
                self._run(store.close(PARTITION))
            self.runner.close()
            self.directory.cleanup()


def _outcome(partition: Partition, command: c.Command, now_ms: int) -> Decision | LockstepError:
    try:
        return partition.step(command, now_ms)
    except LockstepError as error:
        return error


def _compare_refusals(sibling: Decision | LockstepError, error: LockstepError) -> None:
    assert isinstance(sibling, LockstepError)
    assert type(sibling) is type(error)
    assert (sibling.message, sibling.details) == (error.message, error.details)


def _tables(snapshot: Snapshot) -> dict[str, Any]:
    """Return the rows of a snapshot, without the order in which a store happens to return them."""
    tables: dict[str, Any] = {"partition": snapshot.partition, "chunks": list(snapshot.chunks)}
    for name in snapshot.__slots__:
        if name not in tables:
            tables[name] = sorted(getattr(snapshot, name))
    return tables
