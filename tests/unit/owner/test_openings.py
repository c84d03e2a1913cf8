"""Openings that fail: how often they are tried, and what callers, logs and probes are told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry

from lockstep.cluster.changes import Changes
from lockstep.cluster.port import Lease
from lockstep.cluster.static import StaticLease
from lockstep.core.commands import CreateQueue, GetRevision
from lockstep.core.errors import ClusterUnavailable, LockstepError, Moved, StoreUnavailable
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.limits import Limits
from lockstep.core.snapshot import Snapshot
from lockstep.owner.actor import ActorLimits
from lockstep.owner.openings import NEXT_GENERATION, PAUSE_MAX_MS, WARN_EVERY_MS, Openings
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import ManualClock
from lockstep.runtime.metrics import Metrics
from lockstep.storage.memory import MemoryStore

P = PartitionId(0)
LOST_REVISION = 1_000
BACK_WITHIN_MS = 5_000


class Store(MemoryStore):
    """Counts openings, and refuses them as it is told.

    Attributes:
        refusal: What an opening is refused with; None = it is not.
        opened_ms: When openings were tried.
    """

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock
        self.refusal: LockstepError | None = None
        self.opened_ms: list[int] = []

    async def open(self, partition: PartitionId, epoch: PartitionEpoch) -> Snapshot:
        self.opened_ms.append(self._clock.monotonic_ms())
        if self.refusal is not None:
            raise self.refusal
        return await super().open(partition, epoch)


class Counting:
    """An election of one that grants again, under the next revision, what was released.

    Attributes:
        generation: Of the epochs to come.
        revision: Of the epoch that was granted last.
    """

    def __init__(self, revision: int) -> None:
        self._changes = Changes()
        self.generation = 0
        self.revision = revision
        self.grants: dict[PartitionId, Lease] = {}
        self.unwanted: tuple[PartitionId, ...] = ()
        self.grant()

    def grant(self) -> None:
        epoch = PartitionEpoch(self.generation, self.revision, 0)
        self.grants = {P: StaticLease(epoch)}
        self._changes.note()

    @property
    def version(self) -> int:
        return self._changes.version

    async def wait_changed(self, seen: int) -> int:
        return await self._changes.wait(seen)

    async def release(self, _partition: PartitionId) -> None:
        self.revision += 1
        self.grant()


class Rig:
    """An owner whose openings fail."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Store(self.clock)
        self.election = Counting(revision=1)
        self.no_lease: LockstepError | None = None
        parts = OwnerParts(
            store=self.store,
            ownership=self.election,
            clock=self.clock,
            limits=Limits(),
            actor_limits=ActorLimits(),
            metrics=Metrics(CollectorRegistry()),
            why_nothing=lambda: self.no_lease,
        )
        self.supervisor = Supervisor(parts, 1)

    async def pass_time(self, ms: int) -> None:
        await self.clock.advance_stepwise(ms)

    async def is_open(self) -> bool:
        try:
            await self.supervisor.call(P, GetRevision())
        except LockstepError:
            return False
        return True

    async def is_back_within(self, ms: int) -> bool:
        for _ in range(0, ms, 100):
            await self.pass_time(100)
            if await self.is_open():
                return True
        return False


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rig.supervisor.run())
        await rig.pass_time(1)
        yield rig
        await rig.supervisor.close()
        await rig.pass_time(1_000)


async def with_a_later_owner(rig: Rig) -> None:
    """Have the store know of an epoch that etcd, which begins anew, does not reach."""
    await rig.store.open(P, PartitionEpoch(0, LOST_REVISION, 0))
    rig.store.opened_ms.clear()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [one for one in caplog.records if one.levelno >= logging.WARNING]


async def test_a_store_that_refuses_is_asked_after_longer_and_longer_pauses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    rig.store.refusal = StoreUnavailable("refused for the test")
    async with running(rig):
        await rig.pass_time(3 * BACK_WITHIN_MS)

        tried = rig.store.opened_ms
        pauses = [after - before for before, after in pairwise(tried)]
        assert pauses == sorted(pauses)
        assert max(pauses) == PAUSE_MAX_MS
        assert len(warnings_of(caplog)) == 1
        rig.store.refusal = None
        assert await rig.is_back_within(PAUSE_MAX_MS)


async def test_a_call_while_the_store_refuses_is_told_so() -> None:
    rig = Rig()
    rig.store.refusal = StoreUnavailable("refused for the test")
    async with running(rig):
        with pytest.raises(StoreUnavailable, match="Partition 0 is not open: refused for the test"):
            await rig.supervisor.call(P, GetRevision())

        assert rig.supervisor.not_ready() == ["partition 0 is not open: refused for the test"]


async def test_claims_that_stay_fenced_are_made_rarely_and_name_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    await with_a_later_owner(rig)
    async with running(rig):
        await rig.pass_time(8_000)

        assert 3 <= rig.election.revision <= 7
        assert rig.supervisor.not_ready()[0].endswith(NEXT_GENERATION)
        assert [NEXT_GENERATION in vars(one)["why"] for one in warnings_of(caplog)] == [False, True]
        for command in (GetRevision(), CreateQueue("default", "q", {}, "uid")):
            with pytest.raises(ClusterUnavailable, match="lockstep cluster next-generation"):
                await rig.supervisor.call(P, command)


async def test_a_new_generation_is_open_within_seconds() -> None:
    rig = Rig()
    await with_a_later_owner(rig)
    async with running(rig):
        await rig.pass_time(60_000)
        assert not await rig.is_open()

        rig.election.generation += 1

        assert await rig.is_back_within(BACK_WITHIN_MS - 2_000)  # less what it takes to notice
        assert rig.supervisor.not_ready() == []


async def test_the_log_repeats_a_trouble_that_lasts_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    rig.store.refusal = StoreUnavailable("refused for the test")
    async with running(rig):
        await rig.pass_time(2 * WARN_EVERY_MS + PAUSE_MAX_MS)

        assert len(warnings_of(caplog)) == 3


async def test_a_pause_ends_when_the_owner_stops() -> None:
    rig = Rig()
    rig.store.refusal = StoreUnavailable("refused for the test")
    async with asyncio.TaskGroup() as tasks:
        owning = tasks.create_task(rig.supervisor.run())
        await rig.pass_time(20_000)
        await rig.supervisor.close()
        await rig.pass_time(PAUSE_MAX_MS // 10)

        assert owning.done()


async def test_an_owner_without_a_lease_says_why_nothing_is_open() -> None:
    rig = Rig()
    async with running(rig):
        rig.election.grants = {}
        rig.election._changes.note()
        await rig.pass_time(1)
        with pytest.raises(Moved):
            await rig.supervisor.call(P, GetRevision())

        rig.no_lease = ClusterUnavailable("no lease for the test")

        with pytest.raises(ClusterUnavailable, match="no lease for the test"):
            await rig.supervisor.call(P, GetRevision())


def test_nobody_is_told_an_old_trouble_of_a_partition_that_is_owned_elsewhere() -> None:
    clock = ManualClock()
    openings = Openings(clock)
    openings.note_failure(P, StoreUnavailable("refused for the test"))

    clock.advance(60_000)

    assert openings.refusal(P, is_owned=False) is None
    assert openings.why_closed(P, is_owned=True) == "refused for the test"
