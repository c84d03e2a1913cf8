"""The same commands on two stores give the same decisions, and the same partition after each restart.

The histories, and the model that they are held against, are those of the other two tests.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings

from lockstep.core import commands as c
from lockstep.core.changes import PartitionRow
from lockstep.core.decision import Decision
from lockstep.core.entity import QueueDefinition
from lockstep.core.errors import Fenced, LockstepError
from lockstep.core.limits import Limits
from lockstep.core.partition import Partition
from lockstep.core.snapshot import Snapshot, restore_partition
from lockstep.storage.sqlite import SqliteStore
from tests.properties.calls import assert_same
from tests.properties.dump import durable
from tests.properties.rig import PARTITION, Rig, finished
from tests.properties.test_plain_queue import PlainQueueMachine
from tests.properties.test_session_queue import SessionQueueMachine

_Result = TypeVar("_Result")


class TwinRig(Rig):
    """A rig with a second partition, fed with the same commands, which is kept in SQLite."""

    def __init__(self, definition: QueueDefinition, limits: Limits) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.sqlite = SqliteStore(Path(self.directory.name))
        super().__init__(definition, limits)

    def _run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        return self.runner.run(coroutine)

    def _restored(self, now_ms: int) -> Partition:
        stored = self._run(self.sqlite.open(PARTITION, self.epoch))
        assert_same(_tables(stored), _tables(self.snapshot()))
        self._compare_contents(stored)
        self.twin = restore_partition(PARTITION, self.limits, stored, now_ms)
        return super()._restored(now_ms)

    def _compare_contents(self, stored: Snapshot) -> None:
        """Compare the messages and the states, which a snapshot leaves out."""
        chunks = [row.chunk for row in stored.chunks]
        states = [row.key for row in stored.states]
        for load, what in (("load_chunks", chunks), ("load_states", states)):
            assert self._run(getattr(self.sqlite, load)(PARTITION, self.epoch, what)) == finished(
                getattr(self.store, load)(PARTITION, self.epoch, what)
            ), load

    def step(self, command: c.Command, now_ms: int) -> Decision:
        refused: LockstepError | None = None
        try:
            twin = self.twin.step(command, now_ms)
        except LockstepError as error:
            refused = error
        try:
            decision = super().step(command, now_ms)
        except LockstepError as error:
            _compare_refusals(refused, error)
            raise
        assert refused is None
        assert twin.changes == decision.changes
        assert repr(twin.reply) == repr(decision.reply)
        assert (twin.wake, twin.events) == (decision.wake, decision.events)
        return decision

    def commit(self) -> None:
        self._run(self.sqlite.commit(PARTITION, self.epoch, self.pending))
        super().commit()

    def reopen(self, now_ms: int) -> None:
        deposed = self.epoch
        super().reopen(now_ms)
        late = self.sqlite.commit(PARTITION, deposed, [PartitionRow(now_ms, 10**6, 10**6)])
        with pytest.raises(Fenced):
            self._run(late)
        with pytest.raises(Fenced):
            self._run(self.sqlite.load_states(PARTITION, deposed, []))

    def close(self) -> None:
        """Compare once more, and let go of the files."""
        try:
            self.commit()
            self.reopen(self.partition.last_time_ms)
            twin, partition = (durable(p, reopened_ms=None) for p in (self.twin, self.partition))
            assert_same(twin, partition)
        finally:
            self._run(self.sqlite.close(PARTITION))
            self.runner.close()
            self.directory.cleanup()


def _compare_refusals(twin: LockstepError | None, error: LockstepError) -> None:
    assert twin is not None
    assert type(twin) is type(error)
    assert (twin.message, twin.details) == (error.message, error.details)


def _tables(snapshot: Snapshot) -> dict[str, Any]:
    """Return the rows of a snapshot, without the order in which a store happens to return them."""
    tables: dict[str, Any] = {"partition": snapshot.partition, "chunks": list(snapshot.chunks)}
    for name in snapshot.__slots__:
        if name not in tables:
            tables[name] = sorted(getattr(snapshot, name))
    return tables


class TwinSessionQueueMachine(SessionQueueMachine):
    """Session queues in memory and in SQLite."""

    rig_class = TwinRig


class TwinPlainQueueMachine(PlainQueueMachine):
    """Plain queues in memory and in SQLite."""

    rig_class = TwinRig


# Files cost more than memory, so there are fewer histories.
TwinSessionQueueMachine.TestCase.settings = settings(
    max_examples=max(1, settings().max_examples // 5)
)
TwinPlainQueueMachine.TestCase.settings = TwinSessionQueueMachine.TestCase.settings
TestIdenticalSessionQueues = TwinSessionQueueMachine.TestCase
TestIdenticalPlainQueues = TwinPlainQueueMachine.TestCase
