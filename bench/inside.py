"""An owner in this process, for what is measured or prepared without a network.

Here belongs how an owner is put together for that. Never here: what is done with it. The law: it is the shipped owner
with the shipped limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from lockstep.cli.composition import claim_directory
from lockstep.cluster.static import StaticLease, StaticOwnership
from lockstep.core.commands import Accept, ReleaseSession, SetState
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId, SessionId
from lockstep.core.limits import Limits
from lockstep.core.replies import Accepted
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.config import ServerConfig
from lockstep.runtime.metrics import Metrics
from lockstep.storage.port import PartitionStore
from lockstep.storage.sqlite import SqliteStore

PARTITION = PartitionId(0)
HOLDER = "bench"
CALLS_AT_A_TIME = 500


@asynccontextmanager
async def running_owner(store: PartitionStore, starts: int = 1) -> AsyncIterator[Supervisor]:
    """Own the one partition of a store for the time of the block.

    Args:
        store: Where the partition lies.
        starts: How often the store was opened by a process, this time included.
    """
    parts = OwnerParts(
        store=store,
        ownership=StaticOwnership(1, StaticLease(PartitionEpoch(0, starts, 0))),
        clock=SystemClock(),
        limits=Limits(),
        actor_limits=ActorLimits(),
        metrics=Metrics(CollectorRegistry(), version="bench"),
    )
    supervisor = Supervisor(parts, 1)
    await supervisor.open_all()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run())
        try:
            yield supervisor
        finally:
            await supervisor.close()


async def give_states(data_dir: Path, queue: EntityKey, sessions: int, state: bytes) -> None:
    """Give sessions `idle-0` … of a stopped server's queue a state, and nothing else.

    A server would take three calls for each, two minutes for 100,000; what it would have stored is the same.
    """
    with claim_directory(ServerConfig(data_dir=data_dir)) as starts:
        async with running_owner(SqliteStore(data_dir), starts) as owner:
            left: Iterator[int] = iter(range(sessions))

            async def work() -> None:
                for number in left:
                    wanted = Accept(queue, SessionId(f"idle-{number}"), HOLDER)
                    accepted = (await owner.call(PARTITION, wanted)).reply
                    assert isinstance(accepted, Accepted), "nobody else holds it"
                    lock = accepted.session
                    await owner.call(PARTITION, SetState(queue, lock, state))
                    await owner.call(PARTITION, ReleaseSession(queue, lock))

            async with asyncio.TaskGroup() as tasks:
                for _ in range(CALLS_AT_A_TIME):
                    tasks.create_task(work())
