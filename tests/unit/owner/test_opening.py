"""A partition that takes long to open holds up no other one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest
from prometheus_client import CollectorRegistry

from lockstep.cluster.static import StaticLease, StaticOwnership
from lockstep.core.commands import GetRevision
from lockstep.core.errors import Moved
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.limits import Limits
from lockstep.core.replies import Applied
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import ManualClock
from lockstep.runtime.metrics import Metrics
from lockstep.runtime.tasks import at_once
from lockstep.storage.memory import MemoryStore

SMALL, LARGE = PartitionId(0), PartitionId(1)
_Result = TypeVar("_Result")


async def test_a_partition_is_served_while_another_one_is_being_opened() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()
    openings = 0

    async def slowly(work: Callable[[], _Result]) -> _Result:
        nonlocal openings
        openings += 1
        if openings == 2:
            begun.set()
            await may_end.wait()
        return await at_once(work)

    clock = ManualClock()
    parts = OwnerParts(
        store=MemoryStore(),
        ownership=StaticOwnership(2, StaticLease(PartitionEpoch(0, 1, 0))),
        clock=clock,
        limits=Limits(),
        actor_limits=ActorLimits(),
        metrics=Metrics(CollectorRegistry(), version="test"),
        beside=slowly,
    )
    supervisor = Supervisor(parts, 2)
    is_ready = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run(is_ready.set))
        await begun.wait()

        answer = await supervisor.call(SMALL, GetRevision())
        assert isinstance(answer.reply, Applied)
        with pytest.raises(Moved):
            await supervisor.call(LARGE, GetRevision())
        may_end.set()
        await clock.advance_stepwise(1_000)  # until the definitions are brought there too
        await is_ready.wait()

        answer = await supervisor.call(LARGE, GetRevision())
        assert isinstance(answer.reply, Applied)
        await supervisor.close()
        await clock.advance_stepwise(1_000)
