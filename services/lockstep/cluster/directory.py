"""The directory: who owns which partition, followed in etcd, and the ways to the owners.

Here belong the view of the keys that a front end needs, and the life of its connections to owners. Never
here: an election, or what travels over a connection. The laws: while etcd does not answer, the last known
directory goes on being used, since an owner says itself when it has moved; a connection is kept for as long
as some partition is where it leads.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from lockstep.cluster.changes import Changes
from lockstep.cluster.identity import Identity, refuse_stranger
from lockstep.cluster.keys import PARTITIONS_MAX, ClusterState, KeyLayout, Node
from lockstep.cluster.mirror import Mirror
from lockstep.cluster.port import Member, OwnerChannel, Placement
from lockstep.cluster.registry import Registry
from lockstep.cluster.standing import ViewStanding
from lockstep.core.errors import ClusterUnavailable, InvalidRequest, LockstepError
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.runtime.clock import Clock

log = logging.getLogger(__name__)

READY_UNHEARD_MS = 30_000
"""How long a view stays good without news: for an outage of three leases no load balancer takes front ends away.

After that a process may own every partition that is not known here.
"""


class OwnerConnection(OwnerChannel, Protocol):
    """An `OwnerChannel` to one address, which is closed when nobody needs it any more."""

    async def close(self) -> None:
        """Let go of the connection once the calls on it have ended."""


class EtcdDirectory:
    """A `Directory` by keys in etcd; for one event loop."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        *,
        cluster: str,
        partitions: int,
        connect: Callable[[str], OwnerConnection],
    ) -> None:
        """Begin with nothing; `run` does the rest.

        Args:
            registry: etcd.
            clock: For pauses after failures.
            cluster: The name of the cluster.
            partitions: How many it has.
            connect: Makes the way to an owner from its address, host:port; must not wait.
        """
        if not 1 <= partitions <= PARTITIONS_MAX:
            raise InvalidRequest(
                f"A cluster has 1 to {PARTITIONS_MAX} partitions, not {partitions}."
            )
        self._partitions = partitions
        self._clock = clock
        self._connect = connect
        self._layout = KeyLayout(cluster)
        self._mirror = Mirror(registry, clock, self._layout.prefix, changed=self._look)
        self._changes = Changes()
        self._state = ClusterState()
        self._placements: Mapping[PartitionId, Placement] = MappingProxyType({})
        # All and only the addresses that a placement names and that were asked for.
        self._connections: dict[str, OwnerConnection] = {}
        self._unneeded: asyncio.Queue[OwnerConnection] = asyncio.Queue()
        self._ending = asyncio.Event()
        self._failure: LockstepError | None = None

    # --- what a front end asks -------------------------------------------------------------------

    @property
    def partitions(self) -> int:
        """As `Directory` says."""
        return self._partitions

    def owner_of(self, partition: PartitionId) -> OwnerChannel:
        """As `Directory` says."""
        placement = self._placements.get(partition)
        if placement is None:
            raise ClusterUnavailable(
                self._why_nobody(partition), details={"partition": str(partition)}
            )
        connection = self._connections.get(placement.address)
        if connection is None:
            connection = self._connections[placement.address] = self._connect(placement.address)
        return connection

    def placements(self) -> Mapping[PartitionId, Placement]:
        """Return who owns what now; a partition without an owner is not in it."""
        return self._placements

    def is_overtaken(self, partition: PartitionId, epoch: PartitionEpoch) -> bool:
        """Return whether a partition is known to be owned under a higher epoch than this one."""
        placement = self._placements.get(partition)
        return placement is not None and placement.epoch[:2] > epoch[:2]

    def nodes(self) -> Mapping[str, Node]:
        """Return the nodes that are there now, by name."""
        return MappingProxyType(self._state.nodes)

    def members(self) -> Sequence[Member]:
        """Return the nodes with what they own, by name; one that owns something and did not register is among them."""
        owned = Counter(placement.node for placement in self._placements.values())
        unknown = {
            node: Member(node, "", is_leaving=False, partitions=owned[node])
            for node in owned.keys() - self._state.nodes.keys()
        }
        known = {
            name: Member(name, node.release, node.is_leaving, owned[name])
            for name, node in self._state.nodes.items()
        }
        return [member for _, member in sorted({**unknown, **known}.items())]

    def standing(self) -> ViewStanding:
        """Return what is known here, and how old that is."""
        mirror = self._mirror
        heard_ms = mirror.heard_ms
        return ViewStanding(
            None if heard_ms is None else self._clock.monotonic_ms() - heard_ms,
            mirror.revision,
            mirror.problem.message if mirror.problem is not None else "",
            {partition: placement.epoch for partition, placement in self._placements.items()},
        )

    @property
    def version(self) -> int:
        """Counts the changes of placements and nodes."""
        return self._changes.version

    async def wait_changed(self, seen: int) -> int:
        """Return the version once it is not `seen` any more."""
        return await self._changes.wait(seen)

    def not_ready(self) -> list[str]:
        """Return why calls should not be sent by this view; empty = they may. It is used all the same."""
        problem, cut_ms = self._mirror.problem, self._mirror.cut_ms
        if self._mirror.revision == 0:
            return [problem.message if problem else "the keys of the cluster were not read yet"]
        if problem is None or cut_ms is None:
            return []
        cut_for_ms = self._clock.monotonic_ms() - cut_ms
        if cut_for_ms <= READY_UNHEARD_MS:
            return []
        return [f"etcd has told nothing for {cut_for_ms // 1000} s: {problem.message}"]

    def _why_nobody(self, partition: PartitionId) -> str:
        if self._mirror.revision:
            problem = self._mirror.problem
            why = "Try again." if problem is None else f"etcd tells nothing new: {problem.message}"
            return f"Nobody owns partition {partition} now. {why}"
        if self._mirror.problem is not None:
            return f"Who owns partition {partition} is not known: {self._mirror.problem.message}"
        return f"Who owns partition {partition} is not known yet. Try again."

    # --- life ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow etcd until `stop`, then close all connections.

        Raises:
            StoreRefused: An owner has written keys of a newer format, or the cluster has another number of partitions.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._mirror.run()),
                    tasks.create_task(self._close_unneeded()),
                ]
                await self._ending.wait()
                for task in running:
                    task.cancel()
        finally:
            self._placements = MappingProxyType({})
            self._let_go()
            while not self._unneeded.empty():
                await self._unneeded.get_nowait().close()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let `run` end."""
        self._ending.set()

    async def _close_unneeded(self) -> None:
        while True:
            await (await self._unneeded.get()).close()

    def _look(self) -> None:
        """Take in what the keys say now. Never waits."""
        try:
            state = self._layout.read(self._mirror.items.values())
            own = Identity("", self._partitions)
            refuse_stranger(self._layout.prefix, state.identity, own)
        except LockstepError as error:
            self._failure = error
            self._ending.set()
            return
        for key in state.unreadable.keys() - self._state.unreadable.keys():
            log.warning("directory.unreadable_key", extra={"key": key})
        self._state = state
        self._placements = MappingProxyType(
            {
                partition: Placement(
                    node=claim.node,
                    address=claim.address,
                    epoch=PartitionEpoch(claim.generation, claim.create_revision, 0),
                )
                for partition, claim in self._state.claims.items()
                if partition < self._partitions
            }
        )
        self._let_go()
        self._changes.note()

    def _let_go(self) -> None:
        """Set connections aside to which no partition leads any more."""
        needed = {placement.address for placement in self._placements.values()}
        for address in sorted(self._connections.keys() - needed):
            self._unneeded.put_nowait(self._connections.pop(address))
            log.info("directory.unneeded", extra={"address": address})
