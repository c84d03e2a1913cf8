"""Several partitions in one process on a clock that stands still, and front ends over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar, cast

from prometheus_client import CollectorRegistry

from lockstep.client.aio.client import LockstepClient
from lockstep.client.connection import new_connection
from lockstep.cluster.port import OwnerChannel
from lockstep.cluster.static import StaticLease, StaticOwnership
from lockstep.core.commands import (
    Accept,
    Command,
    CreateQueue,
    Outcome,
    Receive,
    ReleaseSession,
    Send,
    Settle,
    Settlement,
)
from lockstep.core.entity import SettingValue
from lockstep.core.errors import ClusterUnavailable, LockstepError
from lockstep.core.ids import EntityKey, PartitionEpoch, PartitionId, SessionId
from lockstep.core.limits import Limits
from lockstep.core.placement import partition_of_session
from lockstep.core.replies import Accepted, Delivered, Runtime
from lockstep.frontend.looking import runtime_of
from lockstep.frontend.main import build_services
from lockstep.frontend.router import Router
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.ids import CountingIds
from lockstep.runtime.metrics import Metrics
from lockstep.storage.memory import MemoryStore
from lockstep.testing.aio_transport import InProcessTransport
from lockstep.testing.broker import ADDRESS, RETRIES
from lockstep.testing.server import CallFailed, InProcessServer
from lockstep.testing.virtual_time import VirtualTime
from lockstep.v1.message_pb2 import Message
from lockstep.wire.server import answer
from lockstep.wire.status import to_status

PARTITIONS = 4
ORDERS = EntityKey("default", "orders")
_Kind = TypeVar("_Kind")


class Paths:
    """The ways to the owners, some of which can be closed."""

    def __init__(self, owner: OwnerChannel) -> None:
        self.partitions = PARTITIONS
        self.closed: set[int] = set()
        self._owner = owner

    def owner_of(self, partition: PartitionId) -> OwnerChannel:
        """Return the way to a partition's owner."""
        if partition in self.closed:
            raise ClusterUnavailable(f"Nobody owns partition {partition}. Try again.")
        return self._owner


class Served(NamedTuple):
    """What a client's transport calls."""

    call: Callable[..., Awaitable[bytes]]


class Cluster:
    """All partitions of a cluster, and calls to them as a front end makes them."""

    def __init__(self, limits: Limits) -> None:
        self.time = VirtualTime(None, None)
        self.clock = self.time.clock
        self.metrics = Metrics(CollectorRegistry(), version="test")
        parts = OwnerParts(
            store=MemoryStore(),
            ownership=StaticOwnership(PARTITIONS, StaticLease(PartitionEpoch(0, 1, 0))),
            clock=self.clock,
            limits=limits,
            actor_limits=ActorLimits(),
            metrics=self.metrics,
        )
        self.supervisor = Supervisor(parts, PARTITIONS)
        self.paths = Paths(self.supervisor)
        self.router = Router(self.paths, self.clock)
        services = build_services(
            self.paths, clock=self.clock, limits=limits, ids=CountingIds(), release="test"
        )
        self._methods = {f"/{s.name}/{m.name}": m for s in services.all for m in s.methods}

    async def serve(self, path: str, payload: bytes, *, timeout_ms: int) -> bytes:
        """Answer one call of the public API."""
        try:
            return await answer(self._methods[path], payload)
        except LockstepError as error:
            status = to_status(error)
            raise CallFailed(status.code, status.details, status.trailing_metadata) from error

    def client(self) -> LockstepClient:
        """Return a client of a front end here."""
        served = cast(InProcessServer, Served(self.serve))
        connection = new_connection(
            lambda *_: InProcessTransport(served, self.time), ADDRESS, "default", RETRIES
        )
        return LockstepClient._over(connection)

    async def pass_time(self, ms: int) -> None:
        """Let time pass, and all that it brings happen."""
        await self.clock.advance_stepwise(ms)

    async def call(self, partition: int, command: Command, kind: type[_Kind]) -> _Kind:
        """Return the reply of one partition, which must be of this kind."""
        reply = (await self.router.call(PartitionId(partition), command)).reply
        assert isinstance(reply, kind)
        return reply

    async def create(self, key: EntityKey = ORDERS, **settings: SettingValue) -> None:
        """Make a queue, by default one with sessions."""
        given = {"requires_session": True, **settings}
        await self.call(0, CreateQueue(key.namespace, key.name, given, "uid"), object)

    async def add_dead_letters(self, count: int, sessions: Sequence[str], *, size: int = 0) -> None:
        """Make so many dead letters, of so many bytes, in each of some sessions."""
        for name in sessions:
            home = partition_of_session(ORDERS, name, PARTITIONS)
            body = Message(body=bytes(size), session_id=name).SerializeToString() if size else b""
            await self.call(home, Send(ORDERS, (body,) * count, (name,)), object)
            lock = (await self.call(home, Accept(ORDERS, SessionId(name), "x"), Accepted)).session
            got = await self.call(home, Receive(ORDERS, False, lock, count), Delivered)
            taken = Settlement(Outcome.DEAD_LETTER, got.grant, tuple(got.sequences), "broken")
            await self.call(home, Settle(ORDERS, False, lock, (taken,)), object)
            await self.call(home, ReleaseSession(ORDERS, lock), object)

    async def runtime(self, key: EntityKey = ORDERS) -> Runtime:
        """Count what a queue holds."""
        return await runtime_of(self.router, key)


def session_on(partition: int, key: EntityKey = ORDERS) -> str:
    """Return the id of a session that lives on a partition."""
    names = (f"session {number}" for number in range(1000))
    return next(name for name in names if partition_of_session(key, name, PARTITIONS) == partition)


@asynccontextmanager
async def running_cluster(limits: Limits | None = None) -> AsyncIterator[Cluster]:
    """Run the owners of a cluster, on a store in memory."""
    cluster = Cluster(limits or Limits())
    await cluster.supervisor.open_all()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(cluster.supervisor.run())
        yield cluster
        await cluster.supervisor.close()
        await cluster.pass_time(1_000)  # so that what sleeps sees it
