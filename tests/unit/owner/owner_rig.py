"""An owner of one partition on a clock that stands still, and its metrics as a scrape would show them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from prometheus_client import CollectorRegistry

from lockstep.cluster.port import Lease
from lockstep.cluster.static import StaticLease, StaticOwnership
from lockstep.core.commands import (
    Accept,
    Command,
    CreateQueue,
    DeleteQueue,
    Outcome,
    Receive,
    ReleaseSession,
    Send,
    Settle,
    Settlement,
)
from lockstep.core.entity import SettingValue
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId, SessionId, SessionLock
from lockstep.core.limits import Limits
from lockstep.core.replies import Accepted, Delivered, Settled
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import ManualClock
from lockstep.runtime.metrics import Metrics
from lockstep.storage.memory import MemoryStore
from lockstep.storage.port import PartitionStore

PARTITION = PartitionId(0)
SESSIONS, PLAIN = EntityKey("default", "sessions"), EntityKey("default", "plain")
_Kind = TypeVar("_Kind")


class Owner:
    """Calls an owner and reads its metrics."""

    def __init__(self, store: PartitionStore, actor_limits: ActorLimits, lease: Lease) -> None:
        self.clock = ManualClock()
        self.metrics = Metrics(CollectorRegistry(), version="test")
        parts = OwnerParts(
            store=store,
            ownership=StaticOwnership(1, lease),
            clock=self.clock,
            limits=Limits(),
            actor_limits=actor_limits,
            metrics=self.metrics,
        )
        self.supervisor = Supervisor(parts, 1)
        self.metrics.watch_entities(self.supervisor.gauges)

    async def pass_time(self, ms: int) -> None:
        """Let time pass, and all that it brings happen."""
        await self.clock.advance_stepwise(ms)

    # --- calls -----------------------------------------------------------------------------------

    async def call(self, command: Command, kind: type[_Kind], *, wait_ms: int = 0) -> _Kind:
        """Return the reply to a command, which must be of this kind."""
        reply = (await self.supervisor.call(PARTITION, command, wait_ms=wait_ms)).reply
        assert isinstance(reply, kind)
        return reply

    async def create(self, key: EntityKey, **settings: SettingValue) -> None:
        """Make a queue; the one named `sessions` has sessions."""
        given = {"requires_session": key == SESSIONS, **settings}
        await self.call(CreateQueue("default", key.name, given, "uid"), object)

    async def delete(self, key: EntityKey) -> None:
        """Delete a queue."""
        await self.call(DeleteQueue(key), object)

    async def send(self, key: EntityKey, count: int = 1, session: str | None = None) -> None:
        """Send messages of one byte in one call."""
        await self.call(Send(key, (b"x",) * count, (session,)), object)

    async def accept(self, session: str | None = None, *, wait_ms: int = 0) -> SessionLock:
        """Take a session: this one, or the next available."""
        wanted = SessionId(session) if session is not None else None
        reply = await self.call(Accept(SESSIONS, wanted, "holder"), Accepted, wait_ms=wait_ms)
        return reply.session

    async def receive(
        self,
        key: EntityKey,
        lock: SessionLock | None = None,
        *,
        maximum: int = 100,
        dead_letter: bool = False,
    ) -> Delivered:
        """Receive what is there."""
        return await self.call(Receive(key, dead_letter, lock, maximum), Delivered)

    async def settle(
        self,
        key: EntityKey,
        outcome: Outcome,
        got: Delivered,
        lock: SessionLock | None = None,
        *,
        dead_letter: bool = False,
    ) -> None:
        """Settle everything that a receive got."""
        settlement = Settlement(outcome, got.grant, tuple(got.sequences))
        reply = await self.call(Settle(key, dead_letter, lock, (settlement,)), Settled)
        assert not reply.failures

    async def release(self, lock: SessionLock) -> None:
        """Give a session back."""
        await self.call(ReleaseSession(SESSIONS, lock), object)

    # --- metrics ---------------------------------------------------------------------------------

    def of_process(self, name: str, **labels: str) -> float:
        """Return one series of `/metrics`; one that is not there has counted nothing."""
        return self.metrics.registry.get_sample_value(f"lockstep_{name}", labels) or 0.0

    def of_queue(self, key: EntityKey, name: str, **labels: str) -> float:
        """Return one series of `/metrics/entities`; one that is not there has counted nothing."""
        entity = {"entity_namespace": key.namespace, "entity": key.name, "entity_type": "queue"}
        registry = self.metrics.entity_registry
        return registry.get_sample_value(f"lockstep_{name}", {**entity, **labels}) or 0.0

    def counted(self, key: EntityKey, name: str) -> dict[tuple[str, ...], float]:
        """Return all that a counter of a queue has counted, by the values of its own labels."""
        return {
            tuple(sample.labels.values())[3:]: sample.value
            for family in self.metrics.entity_registry.collect()
            for sample in family.samples
            if sample.name == f"lockstep_{name}_total" and sample.value
            if sample.labels["entity"] == key.name
        }


@asynccontextmanager
async def running_owner(
    store: PartitionStore | None = None,
    actor_limits: ActorLimits | None = None,
    lease: Lease | None = None,
) -> AsyncIterator[Owner]:
    """Run an owner, by default on a store in memory and with a lease that never ends."""
    lease = lease or StaticLease(PartitionEpoch(0, 1, 0))
    owner = Owner(store or MemoryStore(), actor_limits or ActorLimits(), lease)
    await owner.supervisor.open_all()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(owner.supervisor.run())
        yield owner
        await owner.supervisor.close()
        await owner.pass_time(1_000)  # so that what sleeps sees it
