"""Nodes and front ends of one cluster in one event loop, over a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from lockstep.cluster.directory import EtcdDirectory
from lockstep.cluster.endpoints import EtcdSettings
from lockstep.cluster.etcd import EtcdClient, EtcdLeases
from lockstep.cluster.lease import NodeLease
from lockstep.cluster.node import NodeSettings
from lockstep.cluster.ownership import EtcdOwnership, PartitionLease
from lockstep.cluster.port import Answer, Hint, Ownership
from lockstep.cluster.registry import KeyValue, LeaseCalls
from lockstep.core.commands import Command
from lockstep.core.errors import ClusterUnavailable, LockstepError
from lockstep.core.ids import EntityKey, PartitionId
from lockstep.runtime.clock import Clock, SystemClock

TTL_MS = 20_000  # no test waits for it, unless it says so
PARTITIONS = 6
WITHIN_S = 30


class Changing(Protocol):
    """What counts its changes."""

    @property
    def version(self) -> int: ...

    async def wait_changed(self, seen: int) -> int: ...


async def until(source: Changing, condition: Callable[[], object], what: str) -> None:
    """Wait until something is so, looking after each change of its source."""
    try:
        async with asyncio.timeout(WITHIN_S):
            seen = source.version
            while not condition():
                seen = await source.wait_changed(seen)
    except TimeoutError:
        raise AssertionError(f"not within {WITHIN_S} s: {what}") from None


def granted(ownership: Ownership) -> set[int]:
    """Return which partitions are granted and valid."""
    return {int(p) for p, lease in ownership.grants.items() if lease.is_valid()}


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait for what nobody counts the changes of."""
    clock = SystemClock()
    try:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await clock.sleep(5)
    except TimeoutError:
        raise AssertionError(f"not within {WITHIN_S} s: {what}") from None


class TurnedClock(SystemClock):
    """The machine's clock, which a test may turn forward; sleeps stay the machine's."""

    def __init__(self) -> None:
        super().__init__()
        self._turned_ms = 0

    def monotonic_ms(self) -> int:
        return super().monotonic_ms() + self._turned_ms

    def turn(self, by_ms: int) -> None:
        self._turned_ms += by_ms


class Faults:
    """What goes wrong between a node and etcd.

    Attributes:
        answers_lost: Of how many of the next keys to be created nobody hears.
        passes: Set while requests to create a key reach etcd; else they wait.
        asked: How many of these requests were made.
        answered: How many of them were answered.
    """

    def __init__(self) -> None:
        self.answers_lost = 0
        self.asked = 0
        self.answered = 0
        self.passes = asyncio.Event()
        self.passes.set()


class FaultyClient(EtcdClient):
    """A client that loses answers."""

    def __init__(self, settings: EtcdSettings, faults: Faults) -> None:
        super().__init__(settings)
        self._faults = faults

    async def create(
        self, key: str, value: bytes, *, lease: int, while_leased: str | None = None
    ) -> KeyValue | None:
        self._faults.asked += 1
        await self._faults.passes.wait()
        found = await super().create(key, value, lease=lease, while_leased=while_leased)
        if self._faults.answers_lost > 0:
            self._faults.answers_lost -= 1
            raise ClusterUnavailable("the answer was lost")
        self._faults.answered += 1
        return found


@dataclass
class TestNode:
    """A node that takes part in the election."""

    __test__ = False

    ownership: EtcdOwnership
    lease: NodeLease
    client: EtcdClient
    leases: EtcdLeases
    task: asyncio.Task[None] = field(init=False)
    failure: LockstepError | None = None
    ended: int = 0
    leases_seen: set[PartitionLease] = field(default_factory=set)

    @property
    def granted(self) -> set[int]:
        return granted(self.ownership)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await until(self.ownership, condition, what)

    async def owns(self, partitions: set[int] | int) -> None:
        """Wait until the node owns these, or so many, and nobody asks it to give any back."""
        await self.until(
            lambda: partitions in (self.granted, len(self.granted)) and not self.ownership.unwanted,
            f"the node owns {partitions}",
        )

    async def follow(self, *, hands_over: bool) -> None:
        """Count the grants that end, and release whatever is unwanted, as an owner does; until cancelled."""
        seen, before = -1, self.ownership.grants
        while True:
            seen = await self.ownership.wait_changed(seen)
            self.ended += sum(not lease.is_valid() for lease in before.values())
            before = self.ownership.grants
            self.leases_seen.update(before.values())
            for partition in list(self.ownership.unwanted) if hands_over else ():
                await self.ownership.release(partition)

    @property
    def granted_twice(self) -> int:
        """How many grants had the epoch of another one."""
        return len(self.leases_seen) - len({lease.epoch for lease in self.leases_seen})

    async def run(self) -> None:
        try:
            await self.ownership.run()
        except LockstepError as error:
            self.failure = error

    async def outcome(self) -> None:
        """Wait until the node ends, and raise why it did."""
        async with asyncio.timeout(WITHIN_S):
            await asyncio.wait([self.task])
        if self.failure is not None:
            raise self.failure

    async def told(self, reason: str) -> None:
        """Wait until the node says why it is not ready."""
        async with asyncio.timeout(WITHIN_S):
            while not any(reason in told for told in self.ownership.not_ready()):
                await SystemClock().sleep(5)

    async def stop(self) -> None:
        self.ownership.stop()
        await self.task


class Channel:
    """A connection to an owner that only knows where it leads, and whether it was closed."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_closed = False

    async def call(
        self,
        partition: PartitionId,
        command: Command,
        *,
        wait_ms: int = 0,
        placement: str | None = None,
    ) -> Answer:
        raise NotImplementedError

    def follow_hints(self, partition: PartitionId) -> AsyncIterator[Sequence[Hint]]:
        raise NotImplementedError

    def note_refused_send(
        self, partition: PartitionId, entity: EntityKey, messages: int, error: LockstepError
    ) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        self.is_closed = True


class ClusterRig:
    """Starts nodes and directories of one cluster."""

    def __init__(self, tasks: asyncio.TaskGroup, settings: EtcdSettings, cluster: str) -> None:
        self.settings = settings
        self.cluster = cluster
        self.client = EtcdClient(settings)
        self.leases = EtcdLeases(settings)
        self.nodes: list[TestNode] = []
        self.channels: list[Channel] = []
        self.tasks = tasks
        self._running: list[asyncio.Task[None]] = []
        self._ends: list[Callable[[], None]] = []
        self._clients = [self.client]

    @property
    def prefix(self) -> str:
        return f"/lockstep/{self.cluster}/"

    def node(
        self,
        name: str,
        *,
        clock: Clock | None = None,
        leases: Callable[[LeaseCalls], LeaseCalls] = lambda calls: calls,
        ttl_ms: int = TTL_MS,
        settle_ms: int = 100,
        generation: int = 0,
        databases: int = 1,
        hands_over: bool = True,
        faults: Faults | None = None,
        settings: EtcdSettings | None = None,
        cluster_id: str = "",
        partitions: int = PARTITIONS,
    ) -> TestNode:
        clock = clock or SystemClock()
        etcd = settings or self.settings
        client, calls = FaultyClient(etcd, faults or Faults()), EtcdLeases(etcd)
        lease = NodeLease(leases(calls), clock, ttl_ms=ttl_ms)
        who = NodeSettings(
            self.cluster,
            name,
            f"{name}.test:7710",
            "1.0",
            partitions,
            settle_ms,
            databases,
            cluster_id,
        )
        ownership = EtcdOwnership(client, lease, clock, who, generation=lambda: generation)
        node = TestNode(ownership, lease, client, calls)
        node.task = self.tasks.create_task(node.run())
        self._running.append(self.tasks.create_task(node.follow(hands_over=hands_over)))
        self._ends.append(ownership.stop)
        self._clients.append(client)
        self.nodes.append(node)
        return node

    def directory(
        self, settings: EtcdSettings | None = None, clock: Clock | None = None
    ) -> EtcdDirectory:
        client = EtcdClient(settings or self.settings)
        directory = EtcdDirectory(
            client,
            clock or SystemClock(),
            cluster=self.cluster,
            partitions=PARTITIONS,
            connect=self._connect,
        )
        self.tasks.create_task(directory.run())
        self._ends.append(directory.stop)
        self._clients.append(client)
        return directory

    def _connect(self, address: str) -> Channel:
        self.channels.append(Channel(address))
        return self.channels[-1]

    async def keys(self) -> Mapping[str, int]:
        """Return the lease of each key of the cluster, by its name below the prefix."""
        listing = await self.client.list_prefix(self.prefix)
        return {item.key.removeprefix(self.prefix): item.lease for item in listing.items}

    async def settled(self, *nodes: TestNode) -> None:
        """Wait until these own all partitions between them."""
        async with asyncio.timeout(WITHIN_S):
            while not self._is_settled(nodes):
                await SystemClock().sleep(5)

    def _is_settled(self, nodes: tuple[TestNode, ...]) -> bool:
        each = [node.granted for node in nodes]
        return (
            sorted(p for one in each for p in one) == list(range(PARTITIONS))
            and max(map(len, each)) - min(map(len, each)) <= 1
            and not any(node.ownership.unwanted for node in nodes)
        )

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        for end in self._ends:
            end()
        for node in self.nodes:
            await asyncio.wait([node.task])
            node.leases.close()
        self.leases.close()
        for client in self._clients:
            await client.close()


@asynccontextmanager
async def cluster(settings: EtcdSettings, name: str) -> AsyncIterator[ClusterRig]:
    """Give a cluster of this name; whatever was started in it is ended."""
    async with asyncio.TaskGroup() as tasks:
        rig = ClusterRig(tasks, settings, name)
        try:
            yield rig
        finally:
            await rig.close()
