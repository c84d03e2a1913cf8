"""What a partition that is given up owes those that have asked it: drain, commit, release (design section 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry

from lockstep.cluster.changes import Changes
from lockstep.cluster.port import Lease, OwnerChannel, Placement
from lockstep.cluster.static import StaticLease
from lockstep.core.changes import Change
from lockstep.core.commands import CreateQueue, Outcome, Receive, Send, Settle, Settlement, StartJob
from lockstep.core.errors import ClusterUnavailable, LockstepError, Moved
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId
from lockstep.core.jobs import JobKind, JobOptions, Selector
from lockstep.core.limits import Limits
from lockstep.core.replies import Delivered, Reply, Sent
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import ManualClock
from lockstep.runtime.metrics import Metrics
from lockstep.storage.memory import MemoryStore

P = PartitionId(0)
PLAIN = EntityKey("default", "plain")


class SlowStore(MemoryStore):
    """A store whose commits take a while, once it is slow."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock
        self.commit_ms = 0

    async def commit(
        self, partition: PartitionId, epoch: PartitionEpoch, changes: Sequence[Change]
    ) -> None:
        await self._clock.sleep(self.commit_ms)
        await super().commit(partition, epoch, changes)


class OnePartition:
    """The right to one partition, until another process should have it."""

    def __init__(self) -> None:
        self._changes = Changes()
        self.grants: Mapping[PartitionId, Lease] = {P: StaticLease(PartitionEpoch(0, 1, 0))}
        self.unwanted: Sequence[PartitionId] = ()

    @property
    def version(self) -> int:
        return self._changes.version

    async def wait_changed(self, seen: int) -> int:
        return await self._changes.wait(seen)

    def want_it_elsewhere(self) -> None:
        self.unwanted = (P,)
        self._changes.note()

    async def release(self, _partition: PartitionId) -> None:
        self.grants, self.unwanted = {}, ()
        self._changes.note()


class NoPeers:
    """A directory that knows nobody."""

    partitions = 1
    version = 0

    def owner_of(self, partition: PartitionId) -> OwnerChannel:
        raise ClusterUnavailable(f"Nobody owns partition {partition} now. Try again.")

    def placements(self) -> Mapping[PartitionId, Placement]:
        return {}

    async def wait_changed(self, seen: int) -> int:
        await asyncio.Event().wait()
        return seen


class Moving:
    """An owner of one partition, on a clock that stands still."""

    def __init__(self) -> None:
        self.clock, self.ownership = ManualClock(), OnePartition()
        self.store = SlowStore(self.clock)
        parts = OwnerParts(
            store=self.store,
            ownership=self.ownership,
            clock=self.clock,
            limits=Limits(),
            actor_limits=ActorLimits(),
            metrics=Metrics(CollectorRegistry(), version="test"),
            peers=NoPeers(),
        )
        self.owner = Supervisor(parts, 1)

    async def pass_time(self, ms: int) -> None:
        await self.clock.advance_stepwise(ms)

    async def send(self) -> LockstepError | Reply:
        try:
            return (await self.owner.call(P, Send(PLAIN, (b"y",), (None,)))).reply
        except LockstepError as error:
            return error


async def test_what_was_asked_is_answered_although_a_job_runs_when_the_partition_moves() -> None:
    moving = Moving()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(moving.owner.run())
        await moving.pass_time(0)
        await _with_dead_letters(moving.owner, 3_000)
        moving.store.commit_ms = 10
        job = StartJob(PLAIN, JobKind.RESUBMIT, Selector(), JobOptions(), uid="uid")
        starting = tasks.create_task(moving.owner.call(P, job))
        await moving.pass_time(5)
        sending = tasks.create_task(moving.send())
        await moving.pass_time(0)

        moving.ownership.want_it_elsewhere()
        await moving.pass_time(1_000)

        assert starting.done()
        assert sending.done(), "nobody will ever answer it"
        assert isinstance(sending.result(), Sent)
        assert not moving.ownership.grants
        await moving.owner.close()
        await moving.pass_time(1_000)


async def test_an_owner_that_is_cancelled_leaves_no_call_without_an_answer() -> None:
    moving = Moving()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(moving.owner.run())
        await moving.pass_time(0)
        await moving.owner.call(P, CreateQueue("default", PLAIN.name, {}, "uid"))
        moving.store.commit_ms = 10
        committing = tasks.create_task(moving.send())
        await moving.pass_time(5)
        gathered = tasks.create_task(moving.send())
        await moving.pass_time(0)

        running.cancel()
        await moving.pass_time(1_000)

        assert committing.done()
        assert gathered.done()
        assert isinstance(committing.result(), Moved)
        assert isinstance(gathered.result(), Moved)


async def _with_dead_letters(owner: Supervisor, count: int) -> None:
    """Make a queue with so many dead letters."""
    await owner.call(P, CreateQueue("default", PLAIN.name, {}, "uid"))
    await owner.call(P, Send(PLAIN, (b"x",) * count, (None,)))
    got = (await owner.call(P, Receive(PLAIN, False, None, count))).reply
    assert isinstance(got, Delivered)
    taken = Settlement(Outcome.DEAD_LETTER, got.grant, tuple(got.sequences))
    await owner.call(P, Settle(PLAIN, False, None, (taken,)))
