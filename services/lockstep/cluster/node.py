"""Who a process is that takes part in the election.

Here belong the settings of a node. Never here: what it does (`ownership`).
"""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.cluster.keys import PARTITIONS_MAX, check_address, check_name
from lockstep.core.errors import InvalidRequest

SETTLE_MS = 200


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Who this node is.

    Attributes:
        cluster: The name of the cluster; the same for all its nodes.
        node: The name of this node; unique in the cluster.
        address: Where its owner service listens, as host:port, as others reach it.
        release: Of Lockstep.
        partitions: How many the cluster has.
        settle_ms: How long to wait after a node has come before partitions move to it, in ms.
        databases: In how many databases the partitions are; number n in n modulo that.
        cluster_id: Of the cluster whose database it has; empty = nobody asks.
    """

    cluster: str
    node: str
    address: str
    release: str
    partitions: int
    settle_ms: int = SETTLE_MS
    databases: int = 1
    cluster_id: str = ""

    def __post_init__(self) -> None:
        check_name("node", self.node)
        check_address(self.address)
        if not 1 <= self.partitions <= PARTITIONS_MAX:
            raise InvalidRequest(
                f"A cluster has 1 to {PARTITIONS_MAX} partitions, not {self.partitions}."
            )
