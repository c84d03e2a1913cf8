"""What `lockstep cluster` reads of a cluster.

Here belongs the reading of its keys and leases, of what its processes say of themselves, and of its store's record.
Never here: who should own what (`cluster`), or what is printed (`cluster_table`). The laws: looking changes nothing,
but for `raise_generation`; a process that does not answer keeps nobody from seeing the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from lockstep.cli.cluster_processes import etcd_settings, postgres_settings
from lockstep.cluster.etcd import EtcdClient
from lockstep.cluster.keys import Claim, ClusterState, KeyLayout, Node
from lockstep.cluster.standing import OwnerStanding, PartitionStanding, ViewStanding
from lockstep.core.errors import InvalidRequest, LockstepError
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.frontend.remote import RemoteOwner, connection_to
from lockstep.frontend.view import ask_view
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.config import ServerConfig
from lockstep.storage.postgres import PostgresStore

ANSWER_MS: Final = 2_000
"""How long a process is waited for; all are asked at once."""
_Key = TypeVar("_Key")
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class LeaseTime:
    """A lease, as etcd counts it, in whole seconds.

    Attributes:
        renewed_s: How long ago it was renewed.
        left_s: How long it lives on without another renewal.
    """

    renewed_s: int
    left_s: int


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A cluster as etcd has it, and as its processes say.

    Attributes:
        name: Of the cluster.
        partitions: How many it has.
        nodes: Those that live, by name.
        claims: Who owns what.
        unreadable: Why keys were left out, by key.
        leases: Of nodes, by their names; a lease that is gone is left out.
        owners: What nodes say of themselves, by their names; or why they say nothing.
        views: What front ends say of themselves, by their addresses; or why they say nothing.
    """

    name: str
    partitions: int
    nodes: Mapping[str, Node]
    claims: Mapping[PartitionId, Claim]
    unreadable: Mapping[str, str]
    leases: Mapping[str, LeaseTime]
    owners: Mapping[str, OwnerStanding | LockstepError]
    views: Mapping[str, ViewStanding | LockstepError]

    @property
    def without_owner(self) -> list[int]:
        """The partitions that nobody owns."""
        return [n for n in range(self.partitions) if PartitionId(n) not in self.claims]

    def refuse_too_few(self) -> None:
        """Refuse a number of partitions that is too low, because nothing is said of the others.

        Raises:
            InvalidRequest: Somebody owns a partition that the cluster would not have.
        """
        highest = max(self.claims, default=-1)
        if highest >= self.partitions:
            raise InvalidRequest(
                f"Partition {highest} has an owner, so the cluster has more than {self.partitions} partitions."
                " Which of them have no owner is not known. Give their number with --partitions.",
                details={"observed": str(highest), "configured": str(self.partitions)},
            )

    @property
    def catalogue(self) -> int | None:
        """The last revision of the catalogue of queues; None = its owner does not say."""
        for owner in self.owners.values():
            if isinstance(owner, OwnerStanding) and owner.catalogue is not None:
                return owner.catalogue
        return None

    def standing_of(self, partition: PartitionId) -> PartitionStanding | None:
        """Return how a partition stands at the node that has its key; None = that node does not say."""
        claim = self.claims.get(partition)
        owner = self.owners.get(claim.node) if claim is not None else None
        if not isinstance(owner, OwnerStanding):
            return None
        return next((one for one in owner.partitions if one.partition == partition), None)

    def definitions_behind(self, standing: PartitionStanding) -> int | None:
        """Return how many changes of definitions a partition lacks; None = it is not known."""
        if self.catalogue is None or standing.state not in ("open", "closing"):
            return None
        return max(self.catalogue - standing.definitions, 0)

    def known_wrongly(self, view: ViewStanding) -> list[int]:
        """Return the partitions of which a front end believes what is not so any more, or not yet."""
        claims = {
            partition: PartitionEpoch(claim.generation, claim.create_revision, 0)
            for partition, claim in self.claims.items()
        }
        numbers = range(self.partitions)
        return [n for n in numbers if view.epochs.get(PartitionId(n)) != claims.get(PartitionId(n))]


async def read_status(config: ServerConfig, frontends: Iterable[str] = ()) -> ClusterStatus:
    """Read the keys of a cluster, and ask its processes.

    Args:
        config: Where etcd is.
        frontends: Front ends to ask, as host:port; they are not in etcd.

    Raises:
        ClusterUnavailable: etcd does not answer.
    """
    etcd = EtcdClient(etcd_settings(config.cluster))
    layout = KeyLayout(config.cluster.name)
    try:
        listing = await etcd.list_prefix(layout.prefix)
        state: ClusterState = layout.read(listing.items)
        leases = await _of_each(state.nodes, lambda name: _lease(etcd, state.nodes[name]))
    finally:
        await etcd.close()
    owners = await _of_each(
        state.nodes, lambda name: _owner(state.nodes[name].address, config.partitions)
    )
    views = await _of_each(frontends, lambda address: ask_view(address, within_ms=ANSWER_MS))
    return ClusterStatus(
        config.cluster.name,
        config.partitions,
        state.nodes,
        state.claims,
        state.unreadable,
        {name: one for name, one in leases.items() if isinstance(one, LeaseTime)},
        owners,
        views,
    )


async def _of_each(
    keys: Iterable[_Key], ask: Callable[[_Key], Awaitable[_Found]]
) -> dict[_Key, _Found | LockstepError]:
    """Ask all at once, and return what each found, or why it did not."""
    found: dict[_Key, _Found | LockstepError] = {}

    async def note(key: _Key) -> None:
        try:
            found[key] = await ask(key)
        except LockstepError as error:
            found[key] = error

    async with asyncio.TaskGroup() as tasks:
        for key in sorted(keys, key=str):
            tasks.create_task(note(key))
    return found


async def _lease(etcd: EtcdClient, node: Node) -> LeaseTime | None:
    left_ms, whole_ms = await etcd.lease_time(node.lease)
    if left_ms < 0:
        return None
    return LeaseTime(max(whole_ms - left_ms, 0) // 1000, left_ms // 1000)


async def _owner(address: str, partitions: int) -> OwnerStanding:
    owner = RemoteOwner(
        address,
        connection_to(address),
        partitions=partitions,
        overtaken=lambda _partition, _epoch: False,
    )
    try:
        return await owner.standing(within_ms=ANSWER_MS)
    finally:
        await owner.close()


async def raise_generation(config: ServerConfig) -> int:
    """Say that another etcd counts from now on, and return its generation.

    Raises:
        InvalidRequest: No database is named.
        StoreUnavailable: No answer; try again.
    """
    if not config.cluster.dsns:
        raise InvalidRequest(
            "Name the databases with --postgres or LOCKSTEP_CLUSTER__POSTGRES_DSNS.",
            details={"setting": "cluster.postgres_dsns"},
        )
    settings = postgres_settings(config.cluster)
    return await PostgresStore(config.cluster.dsns, SystemClock(), settings).next_generation()
