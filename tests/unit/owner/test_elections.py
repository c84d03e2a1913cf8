"""What an owner does when the election grants and takes back (`cluster.port.Ownership`)."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from lockstep.cluster.changes import Changes
from lockstep.cluster.port import Lease
from lockstep.cluster.static import StaticLease
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.limits import Limits
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import ManualClock
from lockstep.runtime.metrics import Metrics
from lockstep.storage.memory import MemoryStore

_PARTITION = PartitionId(0)


class Election:
    """An `Ownership` that says what the test wants it to say.

    Attributes:
        grants: As `Ownership` says.
        unwanted: As `Ownership` says.
        released: How often something was released.
        etcd_answers: Cleared while a release waits.
    """

    def __init__(self) -> None:
        self.grants: dict[PartitionId, Lease] = {}
        self.unwanted: set[PartitionId] = set()
        self.released = 0
        self.etcd_answers = asyncio.Event()
        self.etcd_answers.set()
        self._changes = Changes()

    @property
    def version(self) -> int:
        return self._changes.version

    async def wait_changed(self, seen: int) -> int:
        return await self._changes.wait(seen)

    async def release(self, partition: PartitionId) -> None:
        del self.grants[partition]
        self.unwanted.discard(partition)
        self.released += 1
        self._changes.note()
        await self.etcd_answers.wait()

    def grant(self, revision: int) -> None:
        self.grants[_PARTITION] = StaticLease(PartitionEpoch(0, revision, 0))
        self._changes.note()

    def want_elsewhere(self) -> None:
        self.unwanted.add(_PARTITION)
        self._changes.note()


async def test_what_is_granted_again_while_it_is_released_and_is_unwanted_by_then_is_released() -> (
    None
):
    election, clock = Election(), ManualClock()
    parts = OwnerParts(
        store=MemoryStore(),
        ownership=election,
        clock=clock,
        limits=Limits(),
        actor_limits=ActorLimits(),
        metrics=Metrics(CollectorRegistry()),
    )
    supervisor = Supervisor(parts, 1)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        election.grant(1)
        await clock.advance_stepwise(0)
        election.etcd_answers.clear()
        election.want_elsewhere()
        await clock.advance_stepwise(0)
        assert election.released == 1

        election.grant(2)
        election.want_elsewhere()
        election.etcd_answers.set()
        await clock.advance_stepwise(0)

        assert election.released == 2
        await supervisor.close()
