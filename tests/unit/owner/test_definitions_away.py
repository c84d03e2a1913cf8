"""Definitions in a cluster of which a partition cannot be reached (ADD-12)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from prometheus_client import CollectorRegistry

from lockstep.cluster.port import OwnerChannel, Placement
from lockstep.cluster.static import StaticLease, StaticOwnership
from lockstep.core.commands import CreateQueue, GetRuntime
from lockstep.core.errors import ClusterUnavailable, Moved
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId
from lockstep.core.limits import Limits
from lockstep.core.replies import Runtime
from lockstep.frontend.router import Router
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import ManualClock
from lockstep.runtime.metrics import Metrics
from lockstep.storage.memory import MemoryStore

CATALOGUE, AWAY = PartitionId(0), PartitionId(1)
CREATE = CreateQueue("default", "orders", {}, "uid")


class Ways:
    """The directory of two owners, each of one partition; the second cannot be reached at first."""

    partitions = 2
    version = 0

    def __init__(self) -> None:
        self.owners: dict[PartitionId, OwnerChannel] = {}

    def owner_of(self, partition: PartitionId) -> OwnerChannel:
        if partition not in self.owners:
            raise ClusterUnavailable(f"Nobody owns partition {partition} now. Try again.")
        return self.owners[partition]

    def placements(self) -> Mapping[PartitionId, Placement]:
        return {}

    async def wait_changed(self, seen: int) -> int:
        await asyncio.Event().wait()
        return seen


class OwnershipOf(StaticOwnership):
    """The right to one partition."""

    def __init__(self, partition: PartitionId) -> None:
        self._grants = {partition: StaticLease(PartitionEpoch(0, 1, 0))}


class TwoOwners:
    """The owner of the catalogue, and the other one."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.ways = Ways()
        self.router = Router(self.ways, self.clock)
        self.catalogue, self.other = self._owner(CATALOGUE), self._owner(AWAY)
        self.ways.owners[CATALOGUE] = self.catalogue
        self.is_ready = False

    def _owner(self, partition: PartitionId) -> Supervisor:
        parts = OwnerParts(
            store=MemoryStore(),
            ownership=OwnershipOf(partition),
            clock=self.clock,
            limits=Limits(),
            actor_limits=ActorLimits(),
            metrics=Metrics(CollectorRegistry(), version="test"),
            peers=self.ways,
        )
        return Supervisor(parts, self.ways.partitions)

    def note_ready(self) -> None:
        self.is_ready = True


@pytest.fixture
async def owners() -> AsyncIterator[TwoOwners]:
    """Both, running."""
    two = TwoOwners()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(two.catalogue.run(two.note_ready))
        tasks.create_task(two.other.run())
        await two.clock.advance_stepwise(1_000)
        yield two
        await two.catalogue.close()
        await two.other.close()
        await two.clock.advance_stepwise(1_000)


async def test_a_partition_that_is_away_keeps_no_other_owner_from_being_ready(
    owners: TwoOwners,
) -> None:
    assert owners.is_ready


async def test_a_creation_that_not_every_partition_heard_of_is_not_made_twice(
    owners: TwoOwners,
) -> None:
    """Without a request id a second one would be refused, because the first one is in the catalogue."""
    async with asyncio.TaskGroup() as tasks:
        creating = tasks.create_task(_refused(owners))
        await owners.clock.advance_stepwise(1_000)
        owners.ways.owners[AWAY] = owners.other
        await owners.clock.advance_stepwise(1_000)

    assert "catalogue has the change" in creating.result().message
    told = await owners.router.call(AWAY, GetRuntime(EntityKey("default", "orders")))
    assert isinstance(told.reply, Runtime)


async def _refused(owners: TwoOwners) -> Moved:
    with pytest.raises(Moved) as refused:
        await owners.router.call(CATALOGUE, CREATE)
    return refused.value
