"""The processes of a simulated cluster: owners and front ends, put together as `cli.cluster_processes` does.

Here belongs the building of each, its start and its end. Never here: when it fails (`chaos`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from prometheus_client import CollectorRegistry

from lockstep.cluster.directory import EtcdDirectory
from lockstep.cluster.node import NodeSettings
from lockstep.cluster.ownership import EtcdOwnership
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.limits import Limits
from lockstep.frontend.main import build_services
from lockstep.frontend.remote import RemoteOwner
from lockstep.owner.actor import ActorLimits
from lockstep.owner.service import OwnerService
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.ids import CountingIds
from lockstep.runtime.metrics import Metrics
from lockstep.wire.server import answer
from tests.sim.trial import Trial
from tests.simcluster.channel import open_channel
from tests.simcluster.court import Court, Shards, WatchedOwner
from tests.simcluster.etcd import Etcd
from tests.simcluster.network import Network
from tests.simcluster.processes import Outside, Process, ProcessLoop, SteppingClock, sleep_ms
from tests.simcluster.registry import EtcdLinks, SimNodeLease, SimRegistry

CLUSTER = "sim"
PARTITIONS = 4
START_MS = 1_700_000_000_000
TTL_MS = 3000
TAKEOVER_MS = 5000
_GENERATION_EVERY_MS = 2000
_CACHE_BYTES = 200  # of bodies, so little that most are read from the store


@dataclass(slots=True)
class World:
    """What all processes of one run share.

    Attributes:
        trial: The run.
        loop: Where everything runs.
        outside: What goes on beside the processes.
        etcd: The registry.
        network: The way between them.
        courts: The stored partitions and their judges.
        limits: Those of every owner.
        generation: Which etcd it is, as the store has it.
        owners: Those that run or stand still, by name.
        frontends: Those that run or stand still, by name.
        links: Everybody's way to etcd.
        is_calm: Whether everybody must come to an end.
    """

    trial: Trial
    loop: ProcessLoop
    outside: Outside
    etcd: Etcd
    network: Network
    courts: list[Court]
    limits: Limits
    generation: int = 0
    owners: dict[str, OwnerNode] = field(default_factory=dict)
    frontends: dict[str, FrontNode] = field(default_factory=dict)
    links: dict[str, EtcdLinks] = field(default_factory=dict)
    buried: list[Process] = field(default_factory=list)
    is_calm: bool = False

    def owner_of(self, partition: PartitionId) -> OwnerNode | None:
        """Return the running process that has a partition open under a right that holds."""
        for node in self.owners.values():
            grant = node.ownership.grants.get(partition)
            if grant is not None and node.process.runs and partition in node.supervisor._actors:
                return node
        return None


def owner_service(process: Process) -> OwnerService:
    """Return what a process serves to others."""
    service = getattr(process, "owner_service", None)
    assert isinstance(service, OwnerService)
    return service


class OwnerProcess(Process):
    """A process that serves partitions."""

    owner_service: OwnerService


class FrontProcess(Process):
    """A process that serves clients."""

    front: FrontNode


class _Node:
    """What owners and front ends have in common: a clock, a way to etcd, and a directory."""

    def __init__(self, world: World, process: Process, skew_ms: int) -> None:
        self.world = world
        self.process = process
        self.name = process.name
        self.clock = SteppingClock(world.loop, START_MS + skew_ms)
        self.links = EtcdLinks(world.trial, world.etcd, world.outside, process)
        world.links[self.name] = self.links
        self.registry = SimRegistry(self.links)
        self.directory = EtcdDirectory(
            self.registry,
            self.clock,
            cluster=CLUSTER,
            partitions=PARTITIONS,
            connect=self._connect,
        )

    def _connect(self, address: str) -> RemoteOwner:
        host = address.partition(":")[0]
        return RemoteOwner(
            address,
            open_channel(self.world.network, self.process, host, owner_service),
            partitions=PARTITIONS,
            overtaken=lambda partition, epoch: self.directory.is_overtaken(partition, epoch),
        )

    def run(self, what: Any) -> None:
        """Run something for as long as the process lives; if it fails, the run has failed."""
        self.process.begin(what).add_done_callback(self._over)

    def _over(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        self.world.trial.check(error is None, "a process failed:", self.name, repr(error))

    def kill(self) -> None:
        """End the process at whatever it does."""
        if self.process.is_dead:
            return
        self.process.kill()
        self.world.buried.append(self.process)
        self.world.network.went(self.process)


class OwnerNode(_Node):
    """One process that owns partitions."""

    def __init__(self, world: World, name: str, skew_ms: int) -> None:
        process = OwnerProcess(name, world.loop)
        super().__init__(world, process, skew_ms)
        self.store = Shards(world.courts, name, self.clock)
        self.store.when_opened = self._judge_opening
        self.generation = world.generation
        self.lease = SimNodeLease(self.links, self.clock, ttl_ms=TTL_MS)
        settings = NodeSettings(CLUSTER, name, f"{name}:7710", "1.0", PARTITIONS)
        self.ownership = EtcdOwnership(
            self.registry, self.lease, self.clock, settings, generation=lambda: self.generation
        )
        parts = OwnerParts(
            store=self.store,
            ownership=self.ownership,
            clock=self.clock,
            limits=world.limits,
            actor_limits=ActorLimits(body_cache_bytes_max=_CACHE_BYTES),
            metrics=Metrics(CollectorRegistry()),
            peers=self.directory,
        )
        self.supervisor = Supervisor(parts, PARTITIONS)
        self.is_leaving = False
        self._drained = asyncio.Event()
        process.owner_service = OwnerService(PARTITIONS)
        process.owner_service.serve(
            WatchedOwner(self.supervisor, world.courts, process, self._is_trusted)
        )

    def _is_trusted(self) -> bool:
        """Whether the lease of the process, where it says that it holds, tells the truth."""
        return self.world.loop.time() > self.world.etcd.distrusted_until_ms

    def start(self) -> None:
        """Start the process."""
        world = self.world
        world.owners[self.name] = self
        world.network.listen(self.name, self.process)
        world.trial.note(self.name, "started")
        for what in (self.directory.run(), self.ownership.run(), self._own()):
            self.run(what)
        self.run(self._follow_generation())

    async def _own(self) -> None:
        await self.supervisor.run()
        self._drained.set()

    async def _follow_generation(self) -> None:
        while True:
            await self.clock.sleep(_GENERATION_EVERY_MS)
            if not self.store.is_cut:
                self.generation = self.world.generation

    async def leave(self) -> None:
        """Stop in order: be no candidate, hand everything over, give the lease back."""
        self.is_leaving = True
        self.world.trial.note(self.name, "leaves")
        self.ownership.leave()
        await self.supervisor.close()
        await self._drained.wait()
        self.ownership.stop()
        self.directory.stop()
        while self.lease.current is not None or not self.lease.has_ended:
            await sleep_ms(20)
        self.kill()

    def kill(self) -> None:
        """End the process at whatever it does."""
        self.store.die()
        super().kill()

    def _judge_opening(self, partition: PartitionId, epoch: PartitionEpoch) -> None:
        """See that nobody else believes in a right to a partition that opens here (design section 4)."""
        if not self._is_trusted():
            return
        for other in self.world.owners.values():
            grant = other.ownership.grants.get(partition)
            is_other = (
                other is not self
                and not other.process.is_dead
                and grant is not None
                and grant.epoch[:2] != epoch[:2]
            )
            self.world.trial.check(
                not is_other, "two owners at a time:", partition, self.name, other.name
            )


class FrontNode(_Node):
    """One process that answers clients."""

    def __init__(self, world: World, name: str, skew_ms: int, start: int) -> None:
        process = FrontProcess(name, world.loop)
        super().__init__(world, process, skew_ms)
        process.front = self
        self.services = build_services(
            self.directory,
            clock=self.clock,
            ids=CountingIds(f"{name}-{start}-"),
            release="1.0",
            limits=world.limits,
            retry_for_ms=TTL_MS + TAKEOVER_MS,
            note_retry=lambda reason: world.trial.count(f"retry after {reason}"),
        )
        self._methods = {m.name: m for service in self.services.all for m in service.methods}

    def start(self) -> None:
        """Start the process."""
        world = self.world
        world.frontends[self.name] = self
        world.network.listen(self.name, self.process)
        world.trial.note(self.name, "started")
        self.run(self.directory.run())
        self.run(self.services.run())

    async def answer(self, method: str, request: Message) -> bytes:
        """Answer a call of a client."""
        return await answer(self._methods[method], request.SerializeToString())


def front_of(process: Process) -> FrontNode:
    """Return the front end that a process is."""
    assert isinstance(process, FrontProcess)
    return process.front


def names(kind: str, count: int) -> Sequence[str]:
    """Return the names of processes."""
    return [f"{kind}{number}" for number in range(count)]
