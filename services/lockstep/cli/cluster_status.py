"""What `lockstep cluster` reads and shows.

Here belongs the reading of a cluster's keys and of its store's record. Never here: who should own what (`cluster`). The
law: looking changes nothing; only `raise_generation` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lockstep.cli.cluster_processes import etcd_settings, postgres_settings
from lockstep.cli.output import Column, Output
from lockstep.cluster.etcd import EtcdClient
from lockstep.cluster.keys import Claim, ClusterState, KeyLayout, Node
from lockstep.core.errors import InvalidRequest
from lockstep.core.ids import PartitionId
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.config import ServerConfig
from lockstep.storage.postgres import PostgresStore


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A cluster as etcd has it.

    Attributes:
        name: Of the cluster.
        partitions: How many it has.
        nodes: Those that live, by name.
        claims: Who owns what.
        unreadable: Why keys were left out, by key.
    """

    name: str
    partitions: int
    nodes: Mapping[str, Node]
    claims: Mapping[PartitionId, Claim]
    unreadable: Mapping[str, str]

    @property
    def without_owner(self) -> list[int]:
        """The partitions that nobody owns."""
        return [n for n in range(self.partitions) if PartitionId(n) not in self.claims]


async def read_status(config: ServerConfig) -> ClusterStatus:
    """Read the keys of a cluster.

    Raises:
        ClusterUnavailable: etcd does not answer.
    """
    etcd = EtcdClient(etcd_settings(config.cluster))
    layout = KeyLayout(config.cluster.name)
    try:
        listing = await etcd.list_prefix(layout.prefix)
    finally:
        await etcd.close()
    state: ClusterState = layout.read(listing.items)
    return ClusterStatus(
        config.cluster.name, config.partitions, state.nodes, state.claims, state.unreadable
    )


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


def show_status(output: Output, status: ClusterStatus) -> None:
    """Print a cluster."""
    owned: dict[str, list[int]] = {}
    for partition, claim in sorted(status.claims.items()):
        owned.setdefault(claim.node, []).append(partition)
    if output.is_json:
        output.data(
            {
                "cluster": status.name,
                "nodes": [
                    {
                        "name": node.name,
                        "address": node.address,
                        "release": node.release,
                        "leaving": node.is_leaving,
                        "partitions": owned.get(node.name, []),
                    }
                    for _, node in sorted(status.nodes.items())
                ],
                "partitions": [
                    {
                        "partition": partition,
                        "node": claim.node,
                        "address": claim.address,
                        "generation": claim.generation,
                        "revision": claim.create_revision,
                    }
                    for partition, claim in sorted(status.claims.items())
                ],
                "without_owner": status.without_owner,
                "unreadable": dict(status.unreadable),
            }
        )
        return
    output.table(
        [Column(name) for name in ("Node", "Address", "Release", "State", "Partitions")],
        [
            [
                node.name,
                node.address,
                node.release,
                "leaving" if node.is_leaving else "alive",
                ", ".join(map(str, owned.get(node.name, []))) or "none",
            ]
            for _, node in sorted(status.nodes.items())
        ],
    )
    output.table(
        [Column(name) for name in ("Partition", "Owner", "Epoch")],
        [
            [str(partition), claim.node, f"{claim.generation}.{claim.create_revision}"]
            for partition, claim in sorted(status.claims.items())
        ],
    )
    if status.without_owner:
        output.say(f"Without an owner: {', '.join(map(str, status.without_owner))}.")
    for key, why in status.unreadable.items():
        output.say(f"{key}: {why}")
